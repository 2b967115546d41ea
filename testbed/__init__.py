"""MRC Testbed: multi-plane SRv6 fabrics from network namespaces or real devices, driven from pytest."""

__version__ = "0.1.0"
