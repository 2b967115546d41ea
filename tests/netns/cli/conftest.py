"""A real fabric that outlives the command that built it, and ways to run commands against it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from testbed.cli import main
from testbed.cli.fabrics import describe
from testbed.errors import ExitCode, InfrastructureError
from testbed.fabric.netns.client import KeeperClient

ROOT = Path(__file__).resolve().parents[3]
LAB = """\
name: tiny
planes: 2
t0_per_plane: 2
t1_per_plane: 1
hosts_per_t0: 1
reboot: {cold: {links_lost: 50ms, tables_empty: 50ms}}
"""
TIMEOUT_S = 30.0


class Bed:
    """A running fabric and the commands run against it; every process it starts is ended with it."""

    def __init__(self, name: str, lab: Path) -> None:
        self.name = name
        self.lab = lab
        self._started: list[subprocess.Popen[str]] = []

    def testbed(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            _argv(arguments),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env=_environment(),
            **options,
        )

    def on(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command that takes --fabric."""
        return self.testbed(*_named(arguments, self.name), **options)

    def refused(self, *arguments: str) -> str:
        """What a command that takes --fabric says when used wrongly; in this process, as starting one takes long."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            done = CliRunner().invoke(main, _named(arguments, self.name))
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        assert done.exit_code == ExitCode.USAGE, done.output
        assert "Traceback" not in done.output
        return str(done.output)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            _argv(_named(arguments, self.name)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        self._started.append(process)
        return process

    def status(self) -> dict[str, Any]:
        """What ``testbed status --json`` says of it, without the price of a process."""
        facts = describe(self.name)
        assert facts is not None, f"{self.name} is gone"
        return facts

    def wait_status(self, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        facts = {}

        def met() -> bool:
            nonlocal facts
            facts = self.status()
            return condition(facts)

        wait_until(met, lambda: f"{what}: {facts}")
        return facts

    def wait_clean(self) -> None:
        """Nothing runs on it and nothing of it is changed."""
        self.wait_status(lambda facts: facts["state"] == "pristine" and not facts["processes"], "not clean again")

    def end_started(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate(timeout=TIMEOUT_S)
        self._started.clear()


def _argv(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "testbed.cli", *arguments]


def _named(arguments: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The fabric's name goes before a double dash, behind which options belong to a command on a node."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return (*arguments[:place], "--fabric", name, *arguments[place:])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def wait_until(condition: Callable[[], bool], message: Callable[[], str], timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, message()
        time.sleep(0.01)  # The poll interval of a wait with a deadline.


@pytest.fixture(scope="session")
def tiny_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lab") / "tiny.yaml"
    path.write_text(LAB)
    return path


@pytest.fixture(scope="session")
def _fabric(tiny_lab: Path) -> Iterator[Bed]:
    bed = Bed(f"cli-{os.getpid()}-{secrets.token_hex(3)}", tiny_lab)
    try:
        done = bed.testbed("up", str(tiny_lab), "--name", bed.name, "--json")
        assert done.returncode == 0, done.stderr
        yield bed
    finally:
        # Not by the command under test: a broken one must not leave a fabric behind.
        with suppress(InfrastructureError):
            KeeperClient.connect(bed.name).end()


@pytest.fixture
def bed(_fabric: Bed) -> Iterator[Bed]:
    """The fabric of this session, clean before and after each test."""
    _fabric.wait_clean()
    try:
        yield _fabric
    finally:
        _fabric.end_started()
        _fabric.wait_clean()


@pytest.fixture
def until() -> Callable[[Callable[[], bool], Callable[[], str]], None]:
    return wait_until
