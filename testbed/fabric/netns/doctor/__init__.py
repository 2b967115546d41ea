"""What this machine can and cannot do for fabrics of namespaces, each probed for real; nothing is left behind.

Kept free of imports: executed helpers start through this package.
"""
