"""The plugin's hooks: options, markers, and how outcomes are told."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import BedError, ExitCode
from testbed.pytest_plugin import exporting, failure, measuring, outcomes, permitted, pinning, recording, shrinking

DEFAULT_LAB = "laptop"
_NO_TERMINAL = "needs a terminal, and workers (-n) have none"
#: Options that do not go with several workers: what they are where they are not given, and why.
_NO_WORKERS: dict[str, tuple[object, str]] = {
    "--pause-on-failure": (False, _NO_TERMINAL),
    "--shrink": (0, _NO_TERMINAL),
    "--metrics-port": (None, "tells of one process, and workers (-n) are several"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the testbed's options."""
    group = parser.getgroup("testbed", "MRC Testbed")
    group.addoption("--lab", default=DEFAULT_LAB, metavar="LAB", help="lab file, or name of a shipped lab (laptop)")
    permitted.add_option(group)
    group.addoption("--lab-seed", type=int, default=0, metavar="N", help="seed of the workloads' random choices (0)")
    group.addoption("--lab-logs", metavar="DIR", help="keep the logs of processes on the fabric in DIR")
    group.addoption(
        "--results",
        metavar="DIR",
        help="keep a result file and a page of every measurement in DIR, and a run file of the whole session",
    )
    group.addoption(
        "--suite",
        default="",
        metavar="NAME",
        help="what runs of this suite are called in reports, which compare them with each other",
    )
    group.addoption(
        "--fact",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="something that may differ between runs, kept with results: a firmware, a NOS, a commit; repeatable",
    )
    group.addoption(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="tell Prometheus what runs, at this port while the session lasts; 0: any that is free",
    )
    group.addoption(
        "--metrics-host", default="127.0.0.1", metavar="ADDRESS", help="the address for --metrics-port (127.0.0.1)"
    )
    group.addoption(
        "--may-not-run",
        metavar="FILE",
        help="a list of the tests that may be not run; where any other is not run, the session fails",
    )
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
    group.addoption(
        "--shrink",
        type=int,
        nargs="?",
        const=60,
        default=0,
        metavar="RUNS",
        help="run a test that fails under a schedule of faults again, at most RUNS times (60), to find the least of it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; end the session where an option cannot be met, before any time is spent on tests."""
    config.addinivalue_line("markers", "requires(*capabilities): the fabric must be able to do this, or it is not run")
    config.addinivalue_line("markers", permitted.MARKER)
    config.addinivalue_line("markers", "schedule(yaml): faults.play(...) plays this in place of what the test names")
    config.stash[failure.CAPTURES] = []
    config.stash[shrinking.SHRUNK] = []
    if config.getoption("--shrink"):
        config.pluginmanager.register(shrinking, "testbed-shrinking")
    if not hasattr(config, "workerinput"):
        _check_options(config)


def _check_options(config: pytest.Config) -> None:
    for option, (default, why) in _NO_WORKERS.items():
        if config.getoption(option) != default and config.getoption("numprocesses", None):
            raise pytest.UsageError(f"{option} {why}: leave one of them out")
    try:
        if config.getoption("--allow") is not None or config.getoption("--read-only"):
            permitted.settle(config)
        # Only what was asked for: this plugin is loaded by every pytest run of the environment.
        if config.getoption("--lab") != DEFAULT_LAB:
            from testbed.lab import Lab

            lab = Lab.load(config.getoption("--lab"))
            if lab.rig is not None:
                _check_with_rig(config)
        if config.getoption("--may-not-run") is not None:
            file = Path(config.getoption("--may-not-run"))
            config.pluginmanager.register(pinning.Pins(file, pinning.read(file)), "testbed-pins")
        if config.getoption("--results") is not None:
            measuring.require_results_folder(config.getoption("--results"))
            config.pluginmanager.register(recording.Recorder(config), "testbed-recording")
        if config.getoption("--metrics-port") is not None:
            exporting.begin(config)
    except BedError as error:
        pytest.exit(str(error), returncode=error.exit_code)


def _check_with_rig(config: pytest.Config) -> None:
    """What a rig cannot be asked for. Raises UsageError."""
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("a rig has one holder at a time, and each worker (-n) would be one: leave -n out")
    if config.getoption("--pcap-on-failure") is not None:
        raise pytest.UsageError("--pcap-on-failure records the ports of namespaces, and a rig has none: leave it out")


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
        permitted.as_not_run(report, item, call.excinfo.value)
    shrinking.note(item, report)
    if report.failed and call.when == "call":
        item.stash[failure.FAILED] = True
        if item.config.getoption("--pause-on-failure"):
            failure.pause(item, report)
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> outcomes.Category | None:
    """Tell *not run* and *unknown* apart from skipped and failed."""
    return outcomes.category(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List what was not run, and what is unknown, with the reasons, and the captures that were kept."""
    unknown = terminalreporter.stats.get("unknown", [])
    if unknown:
        terminalreporter.section("unknown")
        for report in unknown:
            terminalreporter.line(f"{report.nodeid}: {outcomes.text(report).removeprefix(outcomes.UNKNOWN)}")
    not_run = terminalreporter.stats.get("not run", [])
    if not_run:
        terminalreporter.section("not run")
        for report in not_run:
            reason = outcomes.reason(report).removeprefix(outcomes.NOT_RUN)
            terminalreporter.line(f"{report.nodeid}: {reason}")
    if config.stash.get(failure.LEFT_BEHIND, []):
        terminalreporter.section("left behind by processes that died")
        for line in config.stash[failure.LEFT_BEHIND]:
            terminalreporter.line(line)
    if config.stash[failure.CAPTURES]:
        terminalreporter.section("captures of failed tests")
        for line in config.stash[failure.CAPTURES]:
            terminalreporter.line(line)
    for line, test in config.stash[shrinking.SHRUNK]:
        terminalreporter.section("the least that fails")
        terminalreporter.line(line)
        terminalreporter.line("")
        terminalreporter.write(test)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A session in which nothing could run is not a pass."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or exitstatus != pytest.ExitCode.OK:
        return
    stats = reporter.stats
    if stats.get("not run") and not any(stats.get(kind) for kind in ("passed", "failed", "xfailed", "xpassed")):
        session.exitstatus = ExitCode.NOTHING_RAN
