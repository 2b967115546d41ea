"""How long the command line takes to say anything."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.bench import child
from tests.bench.figures import Figure, Section
from tests.bench.load import Share, watched
from tests.bench.options import Options

_MAIN = "import sys; from testbed.cli import main; sys.exit(main())"


def measure(options: Options) -> Section:
    """``testbed --help`` and, to compare with, an interpreter that does nothing."""
    count = 3 if options.quick else 15
    nothing = [sys.executable, "-c", "pass"]
    bare, _ = _times(nothing, count)
    help_s, shares = _times([sys.executable, "-c", _MAIN, "--help"], count)
    return Section(
        "start",
        "the command line",
        (
            Figure("testbed --help", "s", "from its start to its end", help_s, shares=shares),
            Figure("interpreter", "s", "the same of `python -c pass`", bare),
        ),
        ("after a first start that is not counted, which finds the files on disk and compiled",),
    )


def _times(command: list[str], count: int) -> tuple[tuple[float, ...], tuple[Share, ...]]:
    times: list[float] = []
    shares: list[Share] = []
    for _ in range(count + 1):
        with watched(shares):
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True, cwd=child.ROOT, env=child.environment())
            times.append(time.perf_counter() - began)
    return tuple(times[1:]), tuple(shares[1:])
