"""pytest as a test runs it."""

from __future__ import annotations

from typing import Final

#: Nothing is kept for a next run, and no time goes to a plugin that is not under test and doubles that of a start.
QUICK: Final = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
