"""Which link or switch is at fault, and how, from probes whose ways are known.

Pure: outcomes of probes in, suspects out; no clock, no I/O, nothing of the fabric but the ways its probes take.
"""
