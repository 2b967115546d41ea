"""A lab made of real devices: reached by drivers, changed under a lease and a journal, put back as it was."""
