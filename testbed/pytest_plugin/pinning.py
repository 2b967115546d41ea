"""``--may-not-run FILE``: which tests may be not run; any other that is not run fails the session.

Where a package or a capability goes missing, tests that need it are quietly not run. A list that is kept beside them
says which may be so, here, and a session in which more is missing is no pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.pytest_plugin import outcomes


def read(file: Path) -> frozenset[str]:
    """The tests of a list: a node id a line; what follows a ``#``, and empty lines, are for people.

    Raises UsageError where it cannot be read, or has a line that is no node id.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "the list of tests that may be not run cannot be read", where=str(file), found=str(error)
        ) from error
    found = set()
    for number, line in enumerate(lines, 1):
        node = line.partition(" #")[0].strip()
        if not node or node.startswith("#"):
            continue
        if ".py::" not in node:
            raise UsageError(
                "this is no test's node id",
                where=f"{file}:{number}",
                found=node,
                expected="FILE.py::TEST, as the list of what was not run has it",
            )
        found.add(node)
    return frozenset(found)


class Pins:
    """Holds the session against the list.

    Args:
        file: the list's.
        allowed: node ids in it.
    """

    def __init__(self, file: Path, allowed: frozenset[str]) -> None:
        self._file = file
        self._allowed = allowed
        self._not_run: dict[str, str] = {}
        self._ran: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what was not run, and what of the list was."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._not_run[report.nodeid] = outcomes.reason(report).removeprefix(outcomes.NOT_RUN)
        elif report.when == "call":
            self._ran.add(report.nodeid)

    @property
    def unexpected(self) -> Sequence[str]:
        """Tests that were not run and are not in the list."""
        return sorted(self._not_run.keys() - self._allowed)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """More is missing than may be: no pass."""
        if self.unexpected and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which, and what could leave the list."""
        if self.unexpected:
            terminalreporter.section(f"not run, and not in {self._file}", red=True, bold=True)
            for node in self.unexpected:
                terminalreporter.line(f"{node}  # {self._not_run[node]}")
        outlived = sorted(self._allowed & self._ran)
        if outlived:
            terminalreporter.section(f"run, though {self._file} has them")
            for node in outlived:
                terminalreporter.line(node)
