"""The folder a run leaves: result file, samples, page, logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from testbed.errors import UsageError
from testbed.experiment.measurement import Measured
from testbed.faults.scope import FaultScope
from testbed.lab import Lab
from testbed.measure.limits import Outcome
from testbed.measure.provenance import machine_here, versions_here
from testbed.measure.result import Result, created_from_ns
from testbed.measure.result_parts import (
    ArtefactRecord,
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


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, ``<lab>-<UTC time>`` below the results folder."""

    path: Path
    began: datetime

    @classmethod
    def create(cls, results: Path, label: str) -> Self:
        """Make the folder. Raises UsageError when that is not possible."""
        began = datetime.now(UTC)
        stem = f"{label}-{began:%Y%m%dT%H%M%SZ}"
        for attempt in range(_TRIES):
            path = results.resolve() / (stem if attempt == 0 else f"{stem}-{attempt}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise UsageError(
                    "the results folder cannot be written",
                    where=str(results),
                    found=str(error.strerror),
                    remedy="--out DIR",
                ) from error
            return cls(path, began)
        raise UsageError(f"{_TRIES} runs of {label} began in one second", where=str(results))

    @property
    def logs(self) -> Path:
        """Where processes of the run log to."""
        return self.path / "logs"

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

        Raises InfrastructureError when the folder cannot be written.
        """
        from testbed_reports.page import write_page

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
            realised="netns",
            versions=versions_here(),
            machine=machine_here(),
            seeds=dict(seeds),
            clock=ClockRecord.between(start, end),
            pressure=PressureRecord.of(outcome.pressure),
            faults=tuple(_fault_record(fault, left) for fault in faults),
            events=event_records(measured.events),
            figures=figure_records(measured.figures),
            judgements=JudgementRecord.all_of(measured.judgements, measured.figures),
            timeline=TimelineRecord.of(measured.timeline),
            samples=(save_samples(outcome.samples, self.path / "samples.npz"),),
            artefacts=tuple(
                ArtefactRecord(path=f"logs/{log.name}", kind="log")
                for log in sorted(self.logs.glob("*.log"))
                if log.stat().st_size
            ),
            notes=tuple(_notes(measured)),
        )
        write_result(result, self.result_file)
        write_page(result, self.page)
        return result


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
        kind=fault.name.partition(" of ")[0] if " of " in fault.name else "link down",
        subject=fault.subject,
        begin_ns=issued.t_ns if fault.observed is None else fault.observed.t_ns,
        end_ns=None if healed is None else healed.t_ns,
        healed=fault.error is None and healed is not None and not left,
        note="" if fault.error is None else str(fault.error),
    )


def _notes(measured: Measured) -> list[str]:
    counters = measured.flows.outcome.counters
    within = sum(ev.sent_within for ev in measured.dead.evs)
    lost = sum(ev.lost_within for ev in measured.dead.evs)
    late, worst_ms = counters["late"], counters["behind_ns_max"] / 1e6
    notes = [
        f"{late} packets left more than 1 ms after their time, the latest {worst_ms:.2f} ms",
        f"the probe agents used {counters['cpu_ns'] / 1e9:.2f} s of processor time",
    ]
    if measured.faults:
        notes.append(
            f"{within} packets were sent on dead EVs while these were dead, and {lost} of them were lost; "
            f"on EVs that no fault touched {measured.dead.lost_on_survivors()} were lost"
        )
    return notes
