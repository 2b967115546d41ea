"""MRC on the wire: one table of headers and opcodes, and what encodes and decodes by it."""
