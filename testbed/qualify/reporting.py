"""For pytest (``-p testbed.qualify.reporting``): a line of JSON for each test that began or ended, as it does."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from testbed.pytest_plugin import outcomes
from testbed.pytest_plugin.showing import FIGURE

#: The descriptor that lines are written to.
DESCRIPTOR = "TESTBED_QUALIFY_FD"
#: How the text of a report begins of what neither the fabric nor the endpoint decided.
_INFRASTRUCTURE = ("InfrastructureError: ", "UnknownFigureError: ")


def pytest_configure(config: pytest.Config) -> None:
    """Know the suite's marker where no project file declares it."""
    config.addinivalue_line("markers", "alone: needs the machine for itself; no other test runs meanwhile")


def _tell(line: dict[str, Any]) -> None:
    os.write(int(os.environ[DESCRIPTOR]), (json.dumps(line) + "\n").encode())


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins."""
    _tell({"began": nodeid})


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test has run, or could not be set up, or left something behind."""
    if report.when != "call" and report.passed:
        return
    figures = [value for name, value in report.user_properties if name == FIGURE]
    _tell(
        {
            "ended": report.nodeid,
            "outcome": _outcome(report),
            "message": _message(report),
            "figures": figures,
            "seconds": report.duration,
        }
    )


def _outcome(report: pytest.TestReport) -> str:
    known = outcomes.category(report)
    if known is not None:
        return known[0]
    if report.passed:
        return "pass"
    if report.skipped:
        return "not run"
    return "unknown" if outcomes.text(report).startswith(_INFRASTRUCTURE) else "fail"


def _message(report: pytest.TestReport) -> str:
    if report.passed:
        return ""
    if report.skipped:
        return outcomes.reason(report).removeprefix(outcomes.NOT_RUN)
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else outcomes.text(report)
    return text.removeprefix(outcomes.UNKNOWN).strip()
