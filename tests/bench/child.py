"""Benchmarks run what they time in fresh processes: what a user meets, and nothing left over from the one before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 600

#: A network and a mount namespace of its own, and without root a user namespace in which it is root.
PRIVATE_AS_ROOT = ("unshare", "--net", "--mount")
PRIVATE_ROOTLESS = ("unshare", "--user", "--map-root-user", "--net", "--mount")


class ChildError(Exception):
    """A benchmark's process failed; says how."""


def environment() -> dict[str, str]:
    """This environment, in which the testbed of this checkout is found first."""
    ours = [str(ROOT), str(ROOT / "drivers"), str(ROOT / "reports")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*ours, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def run_module(
    module: str, *arguments: str, within: Sequence[str] = (), python: str = sys.executable, given: Any = None
) -> Any:
    """Run ``python -m module`` and return the JSON document it prints. Raises ChildError.

    Args:
        module: what to run.
        arguments: its command line.
        within: a command to run it by, such as ``unshare``.
        python: the interpreter.
        given: a JSON document for its standard input.
    """
    command = [*within, python, "-m", module, *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    try:
        out, err = process.communicate(json.dumps(given).encode(), timeout=_TIMEOUT_S)
    except BaseException as error:
        process.kill()
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ChildError(f"{module} did not end within {_TIMEOUT_S} s") from error
        raise
    if process.returncode:
        lines = err.decode(errors="replace").strip().splitlines()
        raise ChildError(f"{module} ended with {process.returncode}: {lines[-1] if lines else 'without a word'}")
    return json.loads(out)
