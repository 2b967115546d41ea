"""A workload and what was done to its fabric, put together: figures, verdict, result."""
