"""Root of the test tree. The testbed's own fixtures come from the installed plugin."""

pytest_plugins = ["pytester"]
