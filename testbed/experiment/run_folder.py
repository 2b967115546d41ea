"""The folder a run leaves: result file, samples, page."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from testbed.errors import UsageError
from testbed.experiment.ledger_records import drop_records, ledger_record
from testbed.experiment.measured import Measured
from testbed.faults.scope import FaultScope
from testbed.lab import Lab
from testbed.measure.distributions import distributions
from testbed.measure.flowseries import count_flows, save_series, with_flows
from testbed.measure.limits import Outcome
from testbed.measure.provenance import machine_here, versions_here
from testbed.measure.result import Result, created_from_ns
from testbed.measure.result_parts import (
    ClockRecord,
    FaultRecord,
    JudgementRecord,
    PressureRecord,
    Verdict,
    event_records,
    figure_records,
    lab_record,
)
from testbed.measure.resultfile import write_result
from testbed.measure.samplefile import save_samples
from testbed.measure.series import TimelineRecord

_TRIES = 100
_SERIES = "series.npz"
#: What a folder's name and a result's id may not hold.
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, ``<label>-<UTC time>`` below the results folder; made when there is something to keep."""

    path: Path

    @classmethod
    def plan(cls, results: Path, label: str) -> Self:
        """Choose the folder. Raises UsageError when it could not be made, before any time is spent on a run."""
        stem = f"{_UNFIT.sub('_', label)[:80].strip('._-') or 'run'}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        folder = results.resolve()
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise UsageError(
                "the results folder cannot be written", where=str(results), found=str(existing), remedy="--out DIR"
            )
        numbered = (folder / (stem if number == 0 else f"{stem}-{number}") for number in range(_TRIES))
        path = next((path for path in numbered if not path.exists()), None)
        if path is None:
            raise UsageError(f"{_TRIES} runs of {label} began in one second", where=str(results))
        return cls(path)

    @property
    def result_file(self) -> Path:
        """The result."""
        return self.path / "result.json"

    @property
    def page(self) -> Path:
        """The page made from it."""
        return self.path / "index.html"

    def keep(
        self,
        measured: Measured,
        lab: Lab,
        faults: Sequence[FaultScope],
        left: Sequence[str],
        *,
        title: str,
        command: tuple[str, ...],
        seeds: Mapping[str, int],
        facts: Mapping[str, str] | None = None,
    ) -> Result:
        """Write samples, result and page.

        Args:
            measured: what the run came to.
            lab: what it ran on.
            faults: what was done to it.
            left: what was not as planned on the fabric afterwards.
            title: of the page.
            command: what runs it again.
            seeds: of every random choice.
            facts: what else may differ between runs: firmware, NOS, optics, a commit.

        Raises InfrastructureError when the folder cannot be written.
        """
        from testbed_reports.page import write_page

        self.path.mkdir(parents=True, exist_ok=True)
        outcome = measured.flows.outcome
        verdict, reason = _verdict(measured, left)
        start, end = outcome.clock
        result = Result(
            id=self.path.name,
            title=title,
            created=created_from_ns(start.realtime_ns),
            command=command,
            verdict=verdict,
            reason=reason,
            lab=lab_record(lab),
            realised=lab.realised,
            versions=versions_here(),
            machine=machine_here(),
            seeds=dict(seeds),
            clock=ClockRecord.between(start, end),
            pressure=PressureRecord.of(outcome.pressure),
            faults=tuple(_fault_record(fault, left) for fault in faults),
            events=event_records(measured.events),
            figures=figure_records(measured.figures),
            judgements=JudgementRecord.all_of(measured.judgements, measured.figures),
            timeline=self._timeline(measured),
            distributions=distributions(measured.matched, measured.timeline.planes),
            facts=dict(facts or {}),
            unexplained_packets=None if measured.ledger.unknown else measured.ledger.unexplained,
            drops=drop_records(measured.accounts),
            ledger=ledger_record(measured.accounts),
            samples=(save_samples(outcome.samples, self.path / "samples.npz"),),
            notes=tuple(measured.notes),
        )
        write_result(result, self.result_file)
        write_page(result, self.page)
        return result

    def _timeline(self, measured: Measured) -> TimelineRecord:
        """The thinned time series, and beside it a file with every window of planes and flows."""
        counts = count_flows(measured.matched, measured.timeline)
        save_series(measured.timeline, counts, self.path / _SERIES)
        record = TimelineRecord.of(measured.timeline).model_copy(update={"raw": _SERIES})
        return with_flows(record, counts)


def _verdict(measured: Measured, left: Sequence[str]) -> tuple[Verdict, str]:
    verdict = {Outcome.PASS: Verdict.PASS, Outcome.FAIL: Verdict.FAIL}.get(measured.outcome, Verdict.UNKNOWN)
    reasons = list(measured.reasons)
    if left:
        reasons.append(f"{len(left)} entries of the fabric were not as planned afterwards, such as {left[0]}")
    if verdict is Verdict.PASS and left:
        verdict = Verdict.FAIL
    return verdict, "; ".join(reasons)[:2000]


def _fault_record(fault: FaultScope, left: Sequence[str]) -> FaultRecord:
    issued, healed = fault.events[0], fault.healed
    return FaultRecord(
        kind=fault.kind,
        subject=fault.subject,
        begin_ns=issued.t_ns if fault.observed is None else fault.observed.t_ns,
        end_ns=None if healed is None else healed.t_ns,
        healed=fault.error is None and healed is not None and not left,
        note="" if fault.error is None else str(fault.error),
    )
