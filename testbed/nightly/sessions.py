"""Sessions of pytest on one lab: begun again after each death, without the test that was under way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from testbed.lab.quantities import format_time
from testbed.leases import LEASE_VARIABLE
from testbed.nightly import reporting
from testbed.nightly.config import Config
from testbed.nightly.journal import Ended, Journal, LabState, now

#: pytest came to its own end: all passed, some failed, none was collected, none could run.
_OWN_END: Final = (0, 1, 5, 6)
#: Sessions that die with no test under way: after so many, what is left on this lab is not run.
_MOST_IDLE_DEATHS: Final = 2
_POLL_S: Final = 0.25
_ENDS_S: Final = 20.0
_TAIL_BYTES: Final = 2000

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a lab's tests run.

    Attributes:
        given: the lab as pytest is given it. name: as results name it.
        folder: the night's. start: where pytest starts.
        lock: a descriptor that says that this night goes on, for as long as anything of it lives.
    """

    given: str
    name: str
    folder: Path
    start: Path
    lock: int

    @property
    def log(self) -> Path:
        """What pytest says."""
        return self.folder / f"{self.name}.log"


def run(config: Config, place: Place, journal: Journal, facts: Sequence[str], reason: str, tell: Tell) -> None:
    """Run what is left of a lab's tests, in as many sessions as it takes; ``reason``: why none can run, if so.

    Raises InfrastructureError for a journal that cannot be written. Whoever interrupts it ends the session first, and
    the test that was under way has not had its turn.
    """
    idle = 0
    while idle < _MOST_IDLE_DEATHS:
        journal.write("session", lab=place.name)
        code, late = _session(config, place, journal, facts, reason, tell)
        state = journal.night().lab(place.name)
        if code in _OWN_END and not state.under_way:
            journal.write("finished", lab=place.name)
            return
        how = f"took longer than {format_time(config.test_limit)}" if late else _how(code)
        if not state.under_way:
            idle += 1
        for test, began in list(state.under_way.items()):
            why = f"this test {how}, and was ended" if late else f"pytest {how} while this test ran"
            journal.ended(place.name, test, Ended("fail", why, max(0.0, now() - began)), killed=True)
            tell(f"{test}: {why}; going on without it")
    tail = _tail(place.log)
    reason = f"pytest {how} before any test began: {tail}"
    tell(f"{place.name}: {reason}")
    journal.ended(place.name, f"pytest on {place.name}", Ended("fail", reason))
    journal.write("finished", lab=place.name)


def _session(
    config: Config, place: Place, journal: Journal, facts: Sequence[str], reason: str, tell: Tell
) -> tuple[int, bool]:
    """One session: how it ended, and whether a test took too long."""
    command = [sys.executable, "-m", "pytest", "-p", "testbed.nightly.reporting", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", "--lab", place.given, "--results", str(place.folder)]
    command += ["--suite", config.suite, *(word for fact in facts for word in ("--fact", fact))]
    environment = {
        **os.environ,
        reporting.JOURNAL: str(journal.path),
        reporting.LAB: place.name,
        reporting.PARENT: str(os.getpid()),
        reporting.REASON: reason[:_TAIL_BYTES],
    }
    if lease := journal.night().lab(place.name).lease:
        environment[LEASE_VARIABLE] = lease
    with place.log.open("ab") as log:
        process = subprocess.Popen(
            [*command, *config.options, *config.tests],
            cwd=place.start,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(place.lock,),
            # Ctrl-C is for the night alone, which ends what it started.
            start_new_session=True,
        )
    told = set(journal.night().lab(place.name).ended)
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
            state = journal.night().lab(place.name)
            _tell_new(state, told, tell)
            if process.returncode is not None:
                return process.returncode, False
            if any(now() - began > config.test_limit for began in state.under_way.values()):
                return _end(process), True
    except BaseException:
        _end(process)
        for test in list(journal.night().lab(place.name).under_way):
            journal.write("put back", lab=place.name, test=test)
        raise


def _end(process: subprocess.Popen[bytes]) -> int:
    """End a session with all that it has: its fabrics end with it. Returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDS_S)
    if process.poll() is None:
        process.kill()
    return process.wait()


def _tell_new(state: LabState, told: set[str], tell: Tell) -> None:
    for test, ended in state.ended.items():
        if test not in told:
            told.add(test)
            reason = f": {ended.reason.strip().partition(chr(10))[0][:200]}" if ended.reason else ""
            tell(f"{ended.verdict.replace('_', ' ')}  {test}{reason}")


def _how(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"died of {signal.Signals(-code).name}"
        return f"died of signal {-code}"
    with suppress(ValueError):
        return f"ended with {code} ({pytest.ExitCode(code).name.lower().replace('_', ' ')})"
    return f"ended with {code}"


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return file.read().decode(errors="replace").strip()
