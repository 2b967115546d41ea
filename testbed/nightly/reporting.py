"""For pytest (``-p testbed.nightly.reporting``): tests that have had their turn are left out, each is journalled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.kernel import die_with_parent
from testbed.nightly.journal import Ended, Journal, now
from testbed.pytest_plugin.outcomes import NOT_RUN
from testbed.pytest_plugin.recording import Heard

#: Of the environment: the journal, the lab, who is to be outlived by nobody, and why nothing is to run, if so.
JOURNAL, LAB, PARENT, REASON = (f"TESTBED_NIGHTLY_{name}" for name in ("JOURNAL", "LAB", "PARENT", "REASON"))


class Reporting:
    """Hears what becomes of each test, and writes it down."""

    def __init__(self, journal: Journal, lab: str, reason: str) -> None:
        self._journal, self._lab, self._reason = journal, lab, reason
        self._heard: dict[str, Heard] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what has had its turn; where nothing is to run, say why of each."""
        state = self._journal.night().lab(self._lab)
        had = [item for item in items if item.nodeid in state.ended]
        items[:] = [item for item in items if item.nodeid not in state.ended]
        if had:
            config.hook.pytest_deselected(items=had)
        if self._reason:
            for item in items:
                item.add_marker(pytest.mark.skip(reason=NOT_RUN + self._reason))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Write down what will be run."""
        self._journal.write("planned", lab=self._lab, tests=[item.nodeid for item in session.items])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected has failed, and is told by its name."""
        if report.failed and report.nodeid:
            ended = Ended("fail", f"cannot be collected: {report.longreprtext.strip()[-1000:]}")
            self._journal.ended(self._lab, report.nodeid, ended)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        self._journal.write("began", lab=self._lab, test=nodeid, t=now())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test."""
        self._heard.setdefault(report.nodeid, Heard()).hear(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test has ended."""
        heard = self._heard.pop(nodeid, None) or Heard()
        ended = Ended(heard.verdict, heard.reason, heard.duration_s, tuple(heard.results))
        self._journal.ended(self._lab, nodeid, ended)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """End with the night, and write the journal in place of a run file of this session."""
    die_with_parent(int(os.environ[PARENT]))
    config.pluginmanager.unregister(name="testbed-recording")
    reporting = Reporting(Journal(Path(os.environ[JOURNAL])), os.environ[LAB], os.environ.get(REASON, ""))
    config.pluginmanager.register(reporting, "testbed-nightly")
