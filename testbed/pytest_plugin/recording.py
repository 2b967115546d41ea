"""The run file of a session: what became of every test, written below ``--results`` when the session ends."""

from __future__ import annotations

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
class _Test:
    """What is known of one test while its phases are reported."""

    duration_s: float = 0.0
    verdict: str = "not_run"
    reason: str = ""
    results: list[str] = field(default_factory=list)
    captures: list[str] = field(default_factory=list)
    log: str = ""

    def hear(self, report: pytest.TestReport) -> None:
        self.duration_s += report.duration
        # Every phase carries the properties of the phases before it.
        self.results = [str(value) for name, value in report.user_properties if name == RESULT]
        self.captures = [str(value) for name, value in report.user_properties if name == CAPTURE]
        if report.failed:
            said = (f"{heading}\n{text}\n" for heading, text in [(report.when, report.longreprtext), *report.sections])
            self.log = (self.log + "".join(said))[-_MOST_LOG:]
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
        self._tests: dict[str, _Test] = {}
        self.file: Path | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test."""
        self._tests.setdefault(report.nodeid, _Test()).hear(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the run file; nothing of a session without tests."""
        if not self._tests:
            return
        from testbed.measure.provenance import machine_here, versions_here
        from testbed.measure.resultfile import write_run
        from testbed.measure.run import RunRecord

        folder = self._folder
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
            tests=tuple(
                self._record(name, test, f"{identity}.logs/{number}.log")
                for number, (name, test) in enumerate(self._tests.items())
            ),
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

    @property
    def _folder(self) -> Path:
        return Path(str(self._config.getoption("--results")))

    def _record(self, name: str, test: _Test, log: str) -> TestRecord:
        from testbed.measure.run import TestRecord

        return TestRecord(
            name=name,
            verdict=test.verdict,  # type: ignore[arg-type]  # the model reads it
            reason="" if test.verdict == "pass" and not test.reason else test.reason,
            duration_s=test.duration_s,
            lab=self._lab,
            realised=self._realised,
            results=tuple(test.results),
            artefacts=(*self._log(test, log), *self._captures(test)),
        )

    def _log(self, test: _Test, name: str) -> tuple[ArtefactRecord, ...]:
        """What a failed test said, whole, in a file of its own."""
        from testbed.measure.atomic import write_atomically
        from testbed.measure.result_parts import ArtefactRecord

        if not test.log:
            return ()
        path, content = self._folder / name, test.log.encode(errors="backslashreplace")
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda file: file.write(content))
        return (ArtefactRecord(path=name, kind="log", about="what the test said when it failed"),)

    def _captures(self, test: _Test) -> tuple[ArtefactRecord, ...]:
        """Its captures, where they lie below the results: a page leads to nothing else."""
        from testbed.measure.result_parts import ArtefactRecord

        folder, found = self._folder.resolve(), []
        for capture in map(Path, test.captures):
            if capture.is_relative_to(folder):
                name = capture.relative_to(folder).as_posix()
                # A folder with a name that results cannot hold is as good as one elsewhere.
                with suppress(ValueError):
                    found.append(ArtefactRecord(path=name, kind="capture", about="packets on every port"))
        return tuple(found)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the run file is."""
        if self.file is not None:
            terminalreporter.line(f"run file: {self.file}")
