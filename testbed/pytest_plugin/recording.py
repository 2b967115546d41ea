"""The run file of a session: what became of every test, written below ``--results`` when the session ends."""

from __future__ import annotations

import itertools
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from testbed.errors import UsageError
from testbed.pytest_plugin import outcomes

if TYPE_CHECKING:
    from testbed.measure.result_parts import ArtefactRecord
    from testbed.measure.run import TestRecord

#: Names of ``user_properties`` by which a test says, across processes, what it left; JUnit files show them too.
RESULT: Final = "testbed.result"
CAPTURE: Final = "testbed.capture"
#: Characters kept of what a failed test said: its end, which says why.
_MOST_LOG: Final = 500_000
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
    captures: list[str] = field(default_factory=list)
    #: Name of the file with what it said, from the results folder; empty for one that did not fail.
    log: str = ""

    def hear(self, report: pytest.TestReport) -> None:
        """Take in one phase."""
        self.duration_s += report.duration
        # Every phase carries the properties of the phases before it.
        self.results = [str(value) for name, value in report.user_properties if name == RESULT]
        self.captures = [str(value) for name, value in report.user_properties if name == CAPTURE]
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
        from testbed.lab import Lab

        self._config = config
        self._facts = facts_of(config)
        self._realised = Lab.load(config.getoption("--lab")).realised
        self._began, self._clock = datetime.now(UTC), time.monotonic()
        self._identity = f"run-{self._began:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        # Tests may change the working directory.
        self._folder = Path(str(config.getoption("--results"))).absolute()
        self._logs = itertools.count(1)
        self._tests: dict[str, Heard] = {}
        self.file: Path | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test; what it said is written at once, for nobody has room for that of thousands."""
        test = self._tests.setdefault(report.nodeid, Heard())
        test.hear(report)
        if report.failed:
            test.log = test.log or f"{self._identity}.logs/{next(self._logs)}.log"
            self._write_log(self._folder / test.log, report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the run file; nothing of a session without tests."""
        if not self._tests:
            return
        from testbed.measure.provenance import machine_here, versions_here
        from testbed.measure.resultfile import write_run
        from testbed.measure.run import RunRecord

        self._folder.mkdir(parents=True, exist_ok=True)
        run = RunRecord(
            id=self._identity,
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
        self.file = self._folder / f"{self._identity}.run.json"
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
            realised=self._realised,
            results=tuple(test.results),
            artefacts=self._artefacts(test),
        )

    def _artefacts(self, test: Heard) -> tuple[ArtefactRecord, ...]:
        """Its log, and its captures where they lie below the results: a page leads to nothing else."""
        from testbed.measure.result_parts import ArtefactRecord

        folder, found = self._folder.resolve(), []
        if test.log:
            found.append(ArtefactRecord(path=test.log, kind="log", about="what the test said when it failed"))
        for capture in map(Path, test.captures):
            # A folder with a name that results cannot hold is as good as one elsewhere.
            with suppress(ValueError):
                name = capture.relative_to(folder).as_posix()
                found.append(ArtefactRecord(path=name, kind="capture", about="packets on every port"))
        return tuple(found)

    @staticmethod
    def _write_log(path: Path, report: pytest.TestReport) -> None:
        """Add what a phase that failed said, its end where it is too long. A page tells of a file that is not there."""
        said = "".join(f"{head}\n{text}\n" for head, text in [(report.when, report.longreprtext), *report.sections])
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(said[-_MOST_LOG:])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the run file is."""
        if self.file is not None:
            terminalreporter.line(f"run file: {self.file}")
