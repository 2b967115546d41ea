"""Path probes: sequence-numbered STAMP packets sprayed over chosen paths at high rate."""
