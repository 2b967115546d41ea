"""``mrc_write_bw`` and ``mrc_write_lat``: perftest's programs on the software NIC; either can stand for the other."""
