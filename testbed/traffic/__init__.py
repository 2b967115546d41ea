"""Workloads: what is sent over a fabric, and the samples that come back."""
