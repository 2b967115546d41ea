"""``python -m tests.netns.voice.within MODULE FUNCTION DIRECTORY``: a test's body, in a namespace of its own."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from testbed.pressure import PressureReading
from testbed.pytest_plugin import unknown
from tests.netns.voice.calls import WITHIN, make_network, no_namespaces
from tests.netns.voice.relays import ROOT, environment

#: What a body ends with that the machine kept from deciding.
UNDECIDED = 77
#: A machine on which somebody waited for a processor for more of the time than this plays no audio in time.
_WAITED_MOST = 0.5
_BEGAN = PressureReading.take()


def undecided(why: str) -> NoReturn:
    """End a body without a verdict: the machine was in the way."""
    print(why, file=sys.stderr)
    sys.exit(UNDECIDED)


def ask_the_machine(what: str) -> None:
    """End a body without a verdict where somebody has waited for a processor most of the time since it began."""
    pressure = PressureReading.take().since(_BEGAN)
    waited = (pressure.cpu_some_s or 0.0) / pressure.elapsed_s
    if waited > _WAITED_MOST:
        undecided(f"{what}; but somebody waited for a processor for {waited:.0%} of the time")


def isolated(body: Callable[[Path], None]) -> Callable[[Path], None]:
    """A test whose body runs in a user and network namespace of its own, with the addresses that calls need."""

    @functools.wraps(body)
    def test(tmp_path: Path) -> None:
        missing = no_namespaces()
        if missing:
            pytest.skip(missing)
        command = [*WITHIN, sys.executable, "-m", "tests.netns.voice.within", body.__module__, body.__name__]
        run = subprocess.run(
            [*command, str(tmp_path)], capture_output=True, text=True, env=environment(), cwd=ROOT, check=False
        )
        logs = "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(tmp_path.glob("*.log")))
        print(run.stdout, end="")
        if run.returncode == UNDECIDED:
            unknown(run.stderr.splitlines()[-1])
        assert run.returncode == 0, f"{run.stdout[-2000:]}\n{run.stderr[-6000:]}\n{logs}"

    return test


def main() -> None:
    module, name, directory = sys.argv[1:4]
    make_network()
    getattr(importlib.import_module(module), name).__wrapped__(Path(directory))


if __name__ == "__main__":
    main()
