"""The plugin's hooks: options, markers, and how outcomes are told."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from testbed.errors import ExitCode
from testbed.pytest_plugin import failure, outcomes


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the testbed's options."""
    group = parser.getgroup("testbed", "MRC Testbed")
    group.addoption("--lab", default="laptop", metavar="LAB", help="lab file, or name of a shipped lab (laptop)")
    group.addoption("--lab-seed", type=int, default=0, metavar="N", help="seed of the workloads' random choices (0)")
    group.addoption("--lab-logs", metavar="DIR", help="keep the logs of processes on the fabric in DIR")
    group.addoption("--results", metavar="DIR", help="keep a result file and a page of every measurement in DIR")
    group.addoption(
        "--pause-on-failure",
        action="store_true",
        help="when a test that uses the fabric fails, keep it up and wait for Enter",
    )
    group.addoption(
        "--pcap-on-failure",
        metavar="DIR",
        help="record every port of the fabric, and keep the packets of tests that fail in DIR",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "requires(*capabilities): the fabric must be able to do this, or it is not run")
    config.stash[failure.CAPTURES] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show errors meant for people without a traceback, and pause where asked."""
    report = yield
    if report.failed and call.excinfo is not None:
        words = outcomes.words(call.excinfo.value)
        if words is not None:
            report.longrepr = words
    if report.failed and call.when == "call":
        item.stash[failure.FAILED] = True
        if item.config.getoption("--pause-on-failure"):
            failure.pause(item, report)
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> outcomes.Category | None:
    """Tell *not run* and *unknown* apart from skipped and failed."""
    return outcomes.category(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List what was not run, with the reasons, and the captures that were kept."""
    not_run = terminalreporter.stats.get("not run", [])
    if not_run:
        terminalreporter.section("not run")
        for report in not_run:
            reason = outcomes.reason(report).removeprefix(outcomes.NOT_RUN)
            terminalreporter.line(f"{report.nodeid}: {reason}")
    if config.stash[failure.CAPTURES]:
        terminalreporter.section("captures of failed tests")
        for line in config.stash[failure.CAPTURES]:
            terminalreporter.line(line)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A session in which nothing could run is not a pass."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or exitstatus != pytest.ExitCode.OK:
        return
    stats = reporter.stats
    if stats.get("not run") and not any(stats.get(kind) for kind in ("passed", "failed", "xfailed", "xpassed")):
        session.exitstatus = ExitCode.NOTHING_RAN
