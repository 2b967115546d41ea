"""A rig's nights as a history holds them: 300 tests on 16 hosts x 8 planes, each of 6 hours at 10 Hz.

The packets are drawn, not sent: what is timed are reports, and these are made from files alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from sqlalchemy import insert, select
from sqlalchemy.orm import Session
from testbed_reports.history.store import History
from testbed_reports.history.tables import Measurement, Outcome, Run
from testbed_reports.sources import Source, read_source

from testbed.lab import Lab
from testbed.measure.flowseries import FlowCounts, with_flows
from testbed.measure.provenance import machine_here, versions_here
from testbed.measure.result import Result
from testbed.measure.result_parts import EventRecord, FaultRecord, FigureRecord, Verdict
from testbed.measure.resultfile import write_result, write_run
from testbed.measure.run import RunRecord, TestRecord
from testbed.measure.series import TimelineRecord
from testbed.measure.timeline import Timeline
from tests.unit.reports.runs import T0, reboot_run, result

FIRST: Final = datetime(2026, 6, 1, 1, 30, tzinfo=UTC)
SECONDS: Final = 6 * 3600
WINDOW_NS: Final = 100_000_000
#: Figures over all of a test: so many trends each of them has.
FIGURES: Final = 42
#: Every so many seconds a T1 reboots.
_FAULT_EVERY_S: Final = 1800
_AWAY_S: Final = 3
#: What has another level from two thirds of the nights on: every so many tests, these figures.
_STEPPED_TESTS, _STEPPED = 40, ("failover", "delay_p99")


@dataclass(frozen=True)
class Night:
    """How large the nights are."""

    tests: int = 300
    nights: int = 90


def write_last_night(night: Night, folder: Path, number: int) -> Source:
    """The whole files of one night: a result per test, and the run file.

    Results of one verdict are one file under many names: what is read, drawn and written is the same.
    """
    folder.mkdir(parents=True)
    template = _whole_result(folder)
    made = {
        Verdict.PASS: template,
        Verdict.FAIL: template.model_copy(update={"verdict": Verdict.FAIL, "reason": "failover is above 50 ms"}),
    }
    for verdict, found in made.items():
        write_result(found, folder / f"{verdict}.json")
    tests = []
    for position in range(night.tests):
        verdict = Verdict.FAIL if position % 50 == 49 else Verdict.PASS
        (folder / f"r{position}").mkdir()
        os.link(folder / f"{verdict}.json", folder / f"r{position}" / "result.json")
        tests.append(_test(position, verdict, (f"r{position}/result.json",)))
    path = folder / f"night-{number:03}.run.json"
    write_run(_run(number, tests), path)
    return read_source(path)


def add_earlier_nights(history: History, like: str, numbers: Sequence[int]) -> None:
    """Nights as adding their files would have left them: the rows of one that was added, with noise and a few steps."""
    rng = np.random.default_rng(11)
    with Session(history.engine) as session, session.begin():
        last = session.get_one(Run, like)
        columns = {column.name: getattr(last, column.name) for column in Run.__table__.columns}
        outcomes = [
            row._asdict() for row in session.execute(select(*Outcome.__table__.columns).where(Outcome.run_id == like))
        ]
        rows = session.execute(select(*Measurement.__table__.columns).where(Measurement.run_id == like)).all()
        values = np.array([np.nan if row.value is None else row.value for row in rows])
        stepped = rng.random(len(rows)) < 0.01
        for number in numbers:
            name = f"night-{number:03}"
            created = FIRST + timedelta(days=number)
            record = dict(last.record) | {"id": name, "created": created.isoformat()}
            session.execute(insert(Run), [columns | {"id": name, "created": created, "record": record}])
            session.execute(insert(Outcome), [one | {"run_id": name} for one in outcomes])
            level = np.where(stepped & (number >= len(numbers) * 2 // 3), 1.5, 1.0)
            drawn = (values * level * rng.normal(1, 0.04, values.size)).tolist()
            session.execute(
                insert(Measurement),
                [
                    row._asdict() | {"run_id": name, "value": None if row.value is None else value}
                    for row, value in zip(rows, drawn, strict=True)
                ],
            )


def _run(number: int, tests: Sequence[TestRecord]) -> RunRecord:
    return RunRecord(
        id=f"night-{number:03}",
        title="nightly on rack 2",
        suite="nightly",
        created=FIRST + timedelta(days=number),
        duration_s=SECONDS,
        command=("pytest", "tests/qualification"),
        runner="rig-1",
        versions=versions_here(),
        machine=machine_here(),
        facts={"nos": "5.1.0"},
        tests=tuple(tests),
    )


def _test(position: int, verdict: Verdict, results: tuple[str, ...]) -> TestRecord:
    reason = "" if verdict is Verdict.PASS else "failover is above 50 ms"
    name = f"tests/qualification/test_part_{position // 25:02}.py::test_a_reboot_costs_nothing[{position}]"
    return TestRecord(
        name=name,
        verdict=verdict,
        reason=reason,
        duration_s=SECONDS,
        lab="reference",
        realised="netns",
        results=results,
    )


def _whole_result(folder: Path) -> Result:
    """Figures of a short run on the reference lab, and the time series and faults of a whole night."""
    lab = Lab.load("reference")
    base = result(reboot_run(lab, rate=1000), folder)
    counts = _timeline(lab.planes)
    flows = tuple(f"h{host}>h{(host + 8) % 16}" for host in range(16))
    rng = np.random.default_rng(3)
    per_flow = rng.binomial(800, 0.97, (len(flows), counts.sent.shape[1])).astype(np.int64)
    series = with_flows(TimelineRecord.of(counts), FlowCounts(flows, per_flow, rng.binomial(1, 0.001, per_flow.shape)))
    overall = [one for one in base.figures if one.scope == "all"]
    more = [
        FigureRecord(
            name=f"n_reordering_{n}",
            value=1e-4 / n,
            unit="ratio",
            definition=f"{n}-reordering (RFC 4737)",
            samples=9999,
        )
        for n in range(1, FIGURES - len(overall) + 1)
    ]
    fields = {name: getattr(base, name) for name in Result.model_fields if name != "schema_id"}
    begins = range(_FAULT_EVERY_S, SECONDS, _FAULT_EVERY_S)
    return Result(
        **fields
        | {
            "figures": (*base.figures, *more),
            "timeline": series,
            "faults": tuple(_fault(at) for at in begins),
            "events": tuple(event for at in begins for event in _events(at)),
        }
    )


def _timeline(planes: int) -> Timeline:
    windows = SECONDS * 1_000_000_000 // WINDOW_NS
    rng = np.random.default_rng(2)
    sent = rng.binomial(1600, 0.98, (planes, windows)).astype(np.int64)
    lost = rng.binomial(1, 0.001, (planes, windows)).astype(np.int64)
    at = np.arange(windows) * WINDOW_NS // 1_000_000_000
    lost[3, (at % _FAULT_EVERY_S < _AWAY_S) & (at >= _FAULT_EVERY_S)] += 400
    late = rng.binomial(2, 0.01, (planes, windows)).astype(np.int64)

    def whole(each: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return np.vstack([each.sum(axis=0), each])

    return Timeline(
        T0,
        WINDOW_NS,
        tuple(range(planes)),
        4096,
        whole(sent),
        whole(np.maximum(sent - lost, 0)),
        whole(lost),
        whole(late),
    )


def _fault(at: int) -> FaultRecord:
    begin = T0 + at * 1_000_000_000
    return FaultRecord(
        kind="cold reboot", subject="p3-t1-0", begin_ns=begin, end_ns=begin + _AWAY_S * 1_000_000_000, healed=True
    )


def _events(at: int) -> list[EventRecord]:
    begin = T0 + at * 1_000_000_000
    told = [
        (0, "fault", "issued"),
        (4, "carrier", "carrier lost"),
        (2900, "carrier", "carrier back"),
        (2990, "tables", "forwarding"),
    ]
    out = [EventRecord(t_ns=begin + ms * 1_000_000, lane=lane, subject="p3-t1-0", what=what) for ms, lane, what in told]
    out += [
        EventRecord(
            t_ns=begin + (20 + host) * 1_000_000, lane="traffic", subject=f"h{host} ev 0x0003", what="suspended"
        )
        for host in range(8)
    ]
    return sorted(out, key=lambda event: event.t_ns)
