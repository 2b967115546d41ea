"""The run file of a session: what became of every test, written below ``--results`` when the session ends."""

from __future__ import annotations

import secrets
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from testbed.errors import UsageError
from testbed.pytest_plugin import outcomes

if TYPE_CHECKING:
    from testbed.measure.run import TestRecord

#: Names of ``user_properties`` by which a test says, across processes, what it left; JUnit files show them too.
RESULT: Final = "testbed.result"
_CUT_SHORT: Final = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)


def facts_of(config: pytest.Config) -> dict[str, str]:
    """What ``--fact NAME=VALUE`` said. Raises UsageError for one without a name."""
    found = {}
    for given in config.getoption("--fact"):
        name, sign, value = str(given).partition("=")
        if not sign or not name.strip():
            raise UsageError(
                "a fact has a name and a value", where="--fact", found=given, expected="NAME=VALUE, such as nos=4.2.1"
            )
        found[name.strip()] = value.strip()
    return found


@dataclass
class Heard:
    """What is known of one test while its phases are reported."""

    duration_s: float = 0.0
    verdict: str = "not_run"
    reason: str = ""
    results: list[str] = field(default_factory=list)

    def hear(self, report: pytest.TestReport) -> None:
        """Take in one phase."""
        self.duration_s += report.duration
        # Every phase carries the properties of the phases before it.
        self.results = [str(value) for name, value in report.user_properties if name == RESULT]
        if report.failed:
            unknown = report.when == "call" and outcomes.text(report).startswith(outcomes.UNKNOWN)
            if self.verdict != "fail":
                self.verdict = "unknown" if unknown else "fail"
                self.reason = outcomes.text(report).removeprefix(outcomes.UNKNOWN) or "failed"
        elif report.skipped:
            if hasattr(report, "wasxfail"):
                self.verdict, self.reason = "pass", f"expected to fail, and did: {report.wasxfail}"
            else:
                self.reason = outcomes.reason(report).removeprefix(outcomes.NOT_RUN) or "skipped"
        elif report.when == "call" and self.verdict == "not_run":
            self.verdict = "pass"


class Recorder:
    """Hears what became of every test, of all workers, and writes the run file. Lives in the one that controls."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._facts = facts_of(config)
        self._began, self._clock = datetime.now(UTC), time.monotonic()
        self._tests: dict[str, Heard] = {}
        self.file: Path | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test."""
        self._tests.setdefault(report.nodeid, Heard()).hear(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the run file; nothing of a session without tests."""
        if not self._tests:
            return
        from testbed.measure.provenance import machine_here, versions_here
        from testbed.measure.resultfile import write_run
        from testbed.measure.run import RunRecord

        folder = Path(self._config.getoption("--results"))
        folder.mkdir(parents=True, exist_ok=True)
        identity = f"run-{self._began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        run = RunRecord(
            id=identity,
            title=f"{len(self._tests)} tests on {self._lab}",
            suite=self._suite,
            created=self._began,
            duration_s=time.monotonic() - self._clock,
            command=("pytest", *(str(argument) for argument in self._config.invocation_params.args)),
            runner=socket.gethostname(),
            complete=exitstatus not in _CUT_SHORT,
            versions=versions_here(),
            machine=machine_here(),
            facts=self._facts,
            tests=tuple(self._record(name, test) for name, test in self._tests.items()),
        )
        self.file = folder / f"{identity}.run.json"
        write_run(run, self.file)

    @property
    def _suite(self) -> str:
        """``--suite``, or what was asked for: files and expressions, the same from one run to the next."""
        config = self._config
        given = str(config.getoption("--suite"))
        asked = [*(str(argument) for argument in config.args), config.option.keyword, config.option.markexpr]
        return given or " ".join(part.removeprefix(f"{config.rootpath}/") for part in asked if part)

    @property
    def _lab(self) -> str:
        return Path(str(self._config.getoption("--lab"))).stem

    def _record(self, name: str, test: Heard) -> TestRecord:
        from testbed.measure.run import TestRecord

        return TestRecord(
            name=name,
            verdict=test.verdict,  # type: ignore[arg-type]  # the model reads it
            reason="" if test.verdict == "pass" and not test.reason else test.reason,
            duration_s=test.duration_s,
            lab=self._lab,
            realised="netns",
            results=tuple(test.results),
        )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the run file is."""
        if self.file is not None:
            terminalreporter.line(f"run file: {self.file}")
