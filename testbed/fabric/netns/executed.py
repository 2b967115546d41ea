"""Command lines of the testbed's own executed helpers."""

from __future__ import annotations

import sys
from pathlib import Path

import testbed

_ROOT = str(Path(testbed.__file__).resolve().parent.parent)


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs ``main(arguments)`` of a module.

    Isolated and without site-packages: neither the user's environment nor an import hook can slow such a helper down,
    reach into it, or give it a second thread. The module may import the standard library and its like only.
    """
    start = f"import sys; sys.path.insert(0, sys.argv.pop(1)); from {module} import main; main(sys.argv[1:])"
    return [sys.executable, "-I", "-S", "-c", start, _ROOT, *arguments]
