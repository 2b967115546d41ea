"""Fabrics made of Linux network namespaces. Kept free of imports: the keeper starts through this package."""
