"""MRC transfers as a workload: an agent on each host, what it sends, and the runner's side of it."""
