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

from tests.netns.voice.calls import WITHIN, make_network, no_namespaces
from tests.netns.voice.relays import ROOT, environment

#: What a body ends with that could not look at what it is for.
NOT_RUN = 77


def not_run(why: str) -> NoReturn:
    """End a body without a verdict."""
    print(f"not run: {why}", file=sys.stderr)
    sys.exit(NOT_RUN)


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
        if run.returncode == NOT_RUN:
            pytest.skip(run.stderr.splitlines()[-1])
        assert run.returncode == 0, f"{run.stdout[-2000:]}\n{run.stderr[-6000:]}\n{logs}"

    return test


def main() -> None:
    module, name, directory = sys.argv[1:4]
    make_network()
    getattr(importlib.import_module(module), name).__wrapped__(Path(directory))


if __name__ == "__main__":
    main()
