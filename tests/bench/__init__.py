"""The benchmarks behind ``make bench``; see ``python -m tests.bench --help``."""
