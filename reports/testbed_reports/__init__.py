"""Pages and pictures made from result files, and from nothing else."""
