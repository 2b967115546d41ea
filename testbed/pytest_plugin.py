"""The pytest door: ``--lab`` and the fixtures ``lab``, ``fabric``, ``traffic``, ``faults`` and ``measure``.

One fabric is built per session (per worker under xdist) and handed from test to test; after each test it is compared
with its plan, and rebuilt if a test left it changed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testbed.errors import BedError, ExitCode, UnsupportedError

# Heavy modules are imported when a fixture needs them: this plugin is loaded by every pytest run of the environment.
if TYPE_CHECKING:
    from testbed.experiment.measurement import Measured
    from testbed.fabric.netns.fabric import NetnsFabric
    from testbed.fabric.protocols import Fabric
    from testbed.faults.catalogue import Faults
    from testbed.faults.scope import FaultScope
    from testbed.lab import Lab
    from testbed.traffic.path_probes import PathProbes
    from testbed.traffic.workloads import Traffic

NOT_RUN = "not run: "
UNKNOWN = "unknown: "


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the testbed's options."""
    group = parser.getgroup("testbed", "MRC Testbed")
    group.addoption("--lab", default="laptop", metavar="LAB", help="lab file, or name of a shipped lab (laptop)")
    group.addoption("--lab-seed", type=int, default=0, metavar="N", help="seed of the workloads' random choices (0)")
    group.addoption("--lab-logs", metavar="DIR", help="keep the logs of processes on the fabric in DIR")
    group.addoption(
        "--pause-on-failure",
        action="store_true",
        help="when a test that uses the fabric fails, keep it up and wait for Enter",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "requires(*capabilities): the fabric must be able to do this, or it is not run")


class FabricPool:
    """The one fabric of a session: built when first asked for, kept while pristine."""

    def __init__(self, lab: Lab, logs: Path | None) -> None:
        self._lab = lab
        self._logs = logs
        self._fabric: NetnsFabric | None = None

    def take(self) -> NetnsFabric:
        """A pristine fabric."""
        if self._fabric is None:
            from testbed.fabric.netns.fabric import bring_up

            worker = os.environ.get("PYTEST_XDIST_WORKER", "")
            name = f"pytest-{self._lab.name}-{os.getpid()}{f'-{worker}' if worker else ''}"
            self._fabric = bring_up(self._lab, name=name, logs=self._logs)
        return self._fabric

    def give_back(self) -> list[str]:
        """Check the fabric after a test; one that is not as planned is ended. Returns what was wrong with it."""
        if self._fabric is None:
            return []
        try:
            wrong = self._fabric.check()
        except BedError as error:
            wrong = [str(error)]
        if wrong:
            self.close()
        return wrong

    def close(self) -> None:
        """End the fabric."""
        if self._fabric is not None:
            self._fabric.close()
            self._fabric = None


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    """The lab of this run (``--lab``)."""
    from testbed.lab import Lab

    try:
        return Lab.load(pytestconfig.getoption("--lab"))
    except BedError as error:
        pytest.exit(str(error), returncode=error.exit_code)


@pytest.fixture(scope="session")
def _fabric_pool(lab: Lab, pytestconfig: pytest.Config) -> Iterator[FabricPool]:
    logs = pytestconfig.getoption("--lab-logs")
    pool = FabricPool(lab, Path(logs).resolve() if logs else None)
    yield pool
    pool.close()


@pytest.fixture
def fabric(request: pytest.FixtureRequest, _fabric_pool: FabricPool) -> Iterator[Fabric]:
    """The lab made real, as planned in every table. A test that leaves it changed fails; the next gets a new one."""
    try:
        real = _fabric_pool.take()
    except UnsupportedError as error:
        pytest.skip(f"{NOT_RUN}{error}")
    except BedError as error:
        pytest.fail(str(error), pytrace=False)
    for marker in request.node.iter_markers("requires"):
        for capability in marker.args:
            reason = real.capabilities.reason_against(capability)
            if reason is not None:
                pytest.skip(f"{NOT_RUN}needs {capability}: {reason}")
    yield real
    wrong = _fabric_pool.give_back()
    if wrong:
        lines = "\n".join(wrong[:10])
        pytest.fail(f"this test left the fabric changed ({len(wrong)} differences):\n{lines}", pytrace=False)


@pytest.fixture
def traffic(fabric: Fabric, pytestconfig: pytest.Config) -> Traffic:
    """Workloads on the fabric."""
    from testbed.traffic.workloads import Traffic

    return Traffic(fabric, seed=pytestconfig.getoption("--lab-seed"))


@pytest.fixture
def faults(fabric: Fabric) -> Iterator[Faults]:
    """Faults on the fabric. One that does not heal fails the test, after whatever else it has to say."""
    from testbed.faults.catalogue import Faults

    catalogue = Faults(fabric)
    yield catalogue
    if catalogue.unhealed:
        pytest.fail("unhealed: " + "; ".join(catalogue.unhealed), pytrace=False)


class Measure:
    """Measures finished workloads, and fails the test where the lab's limits are not kept."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.taken: list[Measured] = []

    def __call__(self, flows: PathProbes, *faults: FaultScope) -> Measured:
        """Every figure of a finished workload, judged by the lab's limits; see :class:`Measured`.

        Fails the test when a limit is not kept, and when it cannot be known whether it is.
        """
        from testbed.experiment.measurement import measure
        from testbed.measure.limits import Outcome

        measured = measure(self._lab, flows, faults)
        self.taken.append(measured)
        outcomes = {judgement.outcome for judgement in measured.judgements}
        if Outcome.FAIL in outcomes:
            pytest.fail("\n".join(measured.reasons), pytrace=False)
        if measured.judgements and (measured.unknown_because or Outcome.UNKNOWN in outcomes):
            pytest.fail(UNKNOWN + "\n".join(measured.reasons), pytrace=False)
        return measured


@pytest.fixture
def measure(lab: Lab) -> Measure:
    """From a finished workload to figures and limits: ``measure(flows, *faults)``."""
    return Measure(lab)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show errors meant for people without a traceback, and pause where asked."""
    report = yield
    if report.failed and call.excinfo is not None:
        words = _words(call.excinfo.value)
        if words is not None:
            report.longrepr = words
    if report.failed and call.when == "call" and item.config.getoption("--pause-on-failure"):
        _pause(item, report)
    return report


def _words(error: BaseException) -> str | None:
    """What an error meant for a person says, also of several at once; None where one needs its traceback."""
    if isinstance(error, BaseExceptionGroup):
        parts = [_words(part) for part in error.exceptions]
        return None if None in parts else "\n".join(part for part in parts if part is not None)
    if isinstance(error, pytest.fail.Exception) and not error.pytrace:
        return str(error)
    return f"{type(error).__name__}: {error}" if isinstance(error, BedError) else None


def _pause(item: pytest.Item, report: pytest.TestReport) -> None:
    real = getattr(item, "funcargs", {}).get("fabric")
    capture = item.config.pluginmanager.getplugin("capturemanager")
    if real is None or capture is None or os.environ.get("PYTEST_XDIST_WORKER"):
        return
    capture.suspend(in_=True)
    try:
        text = f"\n{report.longreprtext}\n\n{item.nodeid} failed. Its fabric is up:\n"
        text += f"  testbed shell --fabric {real.name} {real.lab.topology.hosts[0]}\n  testbed status {real.name}\n"
        item.config.get_terminal_writer().write(text)
        input("Press Enter to go on. ")
    finally:
        capture.resume()


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str | tuple[str, dict[str, bool]]] | None:
    """Tell *not run* and *unknown* apart from skipped and failed."""
    if report.skipped and _reason(report).startswith(NOT_RUN):
        return "not run", "N", ("NOT RUN", {"yellow": True})
    if report.failed and report.when == "call" and report.longreprtext.startswith(UNKNOWN):
        return "unknown", "U", ("UNKNOWN", {"yellow": True, "bold": True})
    return None


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was not run, with the reasons."""
    not_run = terminalreporter.stats.get("not run", [])
    if not_run:
        terminalreporter.section("not run")
        for report in not_run:
            terminalreporter.line(f"{report.nodeid}: {_reason(report).removeprefix(NOT_RUN)}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A session in which nothing could run is not a pass."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or exitstatus != pytest.ExitCode.OK:
        return
    stats = reporter.stats
    if stats.get("not run") and not any(stats.get(kind) for kind in ("passed", "failed", "xfailed", "xpassed")):
        session.exitstatus = ExitCode.NOTHING_RAN
