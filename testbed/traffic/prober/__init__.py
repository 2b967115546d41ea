"""The prober: every host probes its own links out and back, while other traffic runs, and what fails is named."""
