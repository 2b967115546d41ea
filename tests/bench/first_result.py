"""From a fresh clone to a first result: what somebody new waits for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.errors import ExitCode
from tests.bench import child
from tests.bench.figures import Figure, Section
from tests.bench.options import Options

_TIMEOUT_S = 1800


def measure(options: Options) -> Section:
    """Once: what it takes depends on the package index and on what pip has in its cache."""
    about = "a fresh clone of the committed state"
    definitions = {
        "clone": "git clone of this checkout",
        "install": "what `make run` does the first time and not the second"
        if _has_make_run()
        else "venv and pip install",
        "run": "a run with everything installed: fabric, probes, a fault, figures, page",
        "first result": "all three",
    }
    lacking = "" if options.full else "it needs the package index: --full"
    times = {} if lacking else _times()
    figures = [
        Figure(step, "s", definition, (times[step],) if times else (), not_run=lacking)
        for step, definition in definitions.items()
    ]
    return Section("first-result", about, tuple(figures))


def _has_make_run() -> bool:
    makefile = child.ROOT / "Makefile"
    return bool(shutil.which("make")) and makefile.exists() and "\nrun:" in f"\n{makefile.read_text()}"


def _times() -> dict[str, float]:
    with TemporaryDirectory() as directory:
        clone = Path(directory) / "clone"
        cloned = _call(["git", "clone", "--quiet", str(child.ROOT), str(clone)], Path(directory))
        if _has_make_run():
            first = _call(["make", "run"], clone)
            run = _call(["make", "run"], clone)
            install = max(0.0, first - run)
        else:
            install = _call([sys.executable, "-m", "venv", ".venv"], clone)
            install += _call([".venv/bin/pip", "install", "--quiet", "-e", "."], clone)
            run = _call([".venv/bin/testbed", "run"], clone)
    return {"clone": cloned, "install": install, "run": run, "first result": cloned + install + run}


def _code(done: subprocess.CompletedProcess[str]) -> int:
    """What it ended with, or what make says its recipe ended with: a verdict is a result, whichever it is."""
    made = re.search(r"Error (\d+)\s*$", done.stderr) if done.args[0] == "make" else None
    return int(made[1]) if made else done.returncode


def _call(command: Sequence[str], where: Path) -> float:
    # What makes this checkout's testbed found must not make it found there.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    verdicts = (ExitCode.FAIL, ExitCode.UNKNOWN) if command[-1] == "run" else ()
    if done.returncode and _code(done) not in verdicts:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise child.ChildError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return time.perf_counter() - began
