"""Shells that answer as switches of vendors do, on real sshd in namespaces, and act on the namespace's kernel.

They accept the documented commands and keep what was configured; outputs are shaped as published. They show that a
driver says what the documentation says and copes with how it is answered: smoke tests, no proof about any device.
"""
