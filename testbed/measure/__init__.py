"""What samples mean: each figure as ``docs/metrics.md`` defines it, computed on numpy columns."""
