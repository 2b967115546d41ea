"""``mrc_write_bw`` and ``mrc_write_lat``: perftest's programs on the software NIC, so that either can stand for the other."""
