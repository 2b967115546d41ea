"""The end of a night: one run file of all labs, stored, compared, published, exported. Each step is done once."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from testbed_reports.comparison import Comparison, compare
from testbed_reports.history.database import default_url
from testbed_reports.history.store import History
from testbed_reports.prometheus import metrics_of, push, write_textfile
from testbed_reports.publishing import publish
from testbed_reports.sources import RUN_SUFFIX, Source
from testbed_reports.trends.store import Told

from testbed.errors import BedError, ExitCode
from testbed.measure.provenance import machine_here, versions_here
from testbed.measure.result_parts import Verdict
from testbed.measure.resultfile import write_run
from testbed.measure.run import RunRecord, TestRecord
from testbed.nightly.config import Config
from testbed.nightly.journal import Journal, LabState, Night

_CODES: Final = {Verdict.PASS: ExitCode.PASS, Verdict.FAIL: ExitCode.FAIL, Verdict.UNKNOWN: ExitCode.UNKNOWN}
_NOT_REACHED: Final = "the night ended before it"


@dataclass
class Came:
    """What a night came to.

    Attributes:
        run: its run file's content. file: that file.
        comparison: with the run before it; None where there is none.
        changes: change points that this run is the first to show.
        unhealed: faults that were not undone.
        published: it is on the site, or has none: where it is not, the next start publishes it, and runs nothing.
        trouble: steps of the closing that failed, a line each.
    """

    run: RunRecord
    file: Path
    comparison: Comparison | None = None
    changes: list[Told] = field(default_factory=list)
    unhealed: int = 0
    published: bool = True
    trouble: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of its tests; a fail where something that ran the time before was not run."""
        return self.run.verdict if self.comparison is None else self.comparison.verdict

    @property
    def exit_code(self) -> ExitCode:
        """The worst of the night: unhealed faults, then the verdict, then what failed of its closing."""
        if self.unhealed:
            return ExitCode.UNHEALED
        code = _CODES.get(self.verdict, ExitCode.NOTHING_RAN)
        return ExitCode.INFRASTRUCTURE if self.trouble and code is ExitCode.PASS else code


def write_run_file(night: Night, folder: Path, command: Sequence[str], *, complete: bool) -> Path:
    """Write the run file of a night, unless that was done before; returns it. Raises InfrastructureError."""
    path = folder / f"{night.id}{RUN_SUFFIX}"
    if path.exists():
        return path
    assert night.created is not None
    tests = [record for name, state in night.labs.items() for record in _records(name, state)]
    write_run(
        RunRecord(
            id=night.id,
            title=f"{len(tests)} tests on {', '.join(night.labs)}"[:200],
            suite=night.suite,
            created=night.created,
            duration_s=max(0.0, (datetime.now(UTC) - night.created).total_seconds()),
            command=tuple(command),
            runner=socket.gethostname(),
            complete=complete,
            versions=versions_here(),
            machine=machine_here(),
            facts=night.facts,
            tests=tuple(tests),
        ),
        path,
    )
    return path


def _records(lab: str, state: LabState) -> list[TestRecord]:
    records = []
    for test in state.planned:
        ended = state.ended.get(test)
        fields: dict[str, Any] = {"verdict": "not_run", "reason": _NOT_REACHED}
        if ended is not None:
            fields = {"verdict": ended.verdict, "reason": ended.reason, "duration_s": ended.duration_s}
            fields["results"] = ended.results
        records.append(TestRecord(name=test, lab=lab, realised=state.realised, **fields))  # type: ignore[arg-type]
    return records


def store(config: Config, start: Path, source: Source) -> None:
    """Keep a run in the history, and do no more with it."""
    with _history(config, start) as history:
        history.add(source)


def close(config: Config, start: Path, journal: Journal, source: Source) -> Came:
    """Store, compare, publish and export a night; what was done before it died is not done again.

    A step that fails is told in the outcome, and hinders no other. Raises BedError where the history cannot be used.
    """
    came = Came(source.run, source.file)
    with _history(config, start) as history:
        history.add(source)
        journal.write("step", step="stored")
        before = history.before(source.run)
        came.comparison = None if before is None else compare(before, source.run)
        came.unhealed = next(run.unhealed for run in history.runs() if run.id == source.run.id)
        if config.site is not None:
            _publish(history, start / config.site, config.keep, source, journal, came)
    _export(config, start, source, came)
    return came


def _history(config: Config, start: Path) -> History:
    place = config.history
    if place is None:
        return History.open(default_url())
    return History.open(place if "://" in place else str(start / Path(place).expanduser()))


def _publish(history: History, site: Path, keep: int, source: Source, journal: Journal, came: Came) -> None:
    """Publish, unless the site that is shown has this run: it was swapped in as a whole."""
    if not (site / "runs" / source.run.id / "index.html").is_file():
        try:
            came.changes = [one for one in publish(history, site, keep=keep).told if one.new]
        except BedError as error:
            came.published = False
            came.trouble.append(f"not published: {error.message} ({error.where})")
            return
    journal.write("step", step="published")


def _export(config: Config, start: Path, source: Source, came: Came) -> None:
    if config.textfile is None and config.push is None:
        return
    registry = metrics_of(source)
    try:
        if config.textfile is not None:
            write_textfile(registry, start / config.textfile)
        if config.push is not None:
            push(registry, config.push, source.run.runner)
    except BedError as error:
        came.trouble.append(f"metrics not told: {error.message} ({error.where})")
