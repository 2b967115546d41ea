"""A software MRC NIC: wire format, verbs, reliability, entropy values, congestion control, and the data path."""
