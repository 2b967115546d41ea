"""For pytest (``-p tests.mutation.plugin``): plants the defect that is asked for, and writes how each test ended."""

from __future__ import annotations

import json
import os

import pytest

from tests.mutation.catalogue import DEFECTS
from tests.mutation.planting import VARIABLE

#: The file that outcomes are appended to, a JSON object a line.
OUTCOMES = "TESTBED_TESTS_OUTCOMES"


def pytest_configure(config: pytest.Config) -> None:
    name = os.environ.get(VARIABLE, "")
    if name:
        DEFECTS[name].plant()


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" and report.outcome == "passed":
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else report.longreprtext
    line = {"node": report.nodeid, "when": report.when, "outcome": report.outcome, "message": text}
    with open(os.environ[OUTCOMES], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
