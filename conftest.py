"""Root of the test tree: fixtures come from the installed pytest plugin."""
