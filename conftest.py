"""Root of the test tree. The testbed's own fixtures come from the installed plugin."""

import os

from hypothesis import settings

pytest_plugins = ["pytester"]

# A failure in CI must be one that the next run finds again; people's machines keep searching at random.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
