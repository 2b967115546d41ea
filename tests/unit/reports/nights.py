"""Runs of many tests, as a rig leaves them night after night: no packets, only what reports are made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from testbed_reports.sources import Source

from testbed.measure.provenance import machine_here, versions_here
from testbed.measure.result import Result
from testbed.measure.result_parts import FigureRecord, Verdict
from testbed.measure.resultfile import write_result, write_run
from testbed.measure.run import RunRecord, TestRecord

FIRST = datetime(2026, 6, 1, 1, 30, tzinfo=UTC)


def test(name: str, verdict: Verdict = Verdict.PASS, **more: Any) -> TestRecord:  # noqa: PT028 - no test
    reason = "" if verdict is Verdict.PASS else f"because of {verdict.value}"
    fields: dict[str, Any] = {"name": name, "verdict": verdict, "reason": reason, "lab": "laptop", "realised": "netns"}
    return TestRecord(**(fields | {"duration_s": 1.25} | more))


test.__test__ = False  # type: ignore[attr-defined]


def night(number: int, tests: Iterable[TestRecord], **more: Any) -> RunRecord:
    """The run of one night; all are of one suite."""
    fields: dict[str, Any] = {
        "id": f"night-{number:03}",
        "title": "nightly",
        "suite": "nightly",
        "created": FIRST + timedelta(days=number),
        "duration_s": 3600.0,
        "command": ("pytest", "tests/qualification"),
        "runner": "rig-1",
        "versions": versions_here(),
        "machine": machine_here(),
        "tests": tuple(tests),
    }
    return RunRecord(**(fields | more))


def kept(run: RunRecord, folder: Path) -> Source:
    """The run as a run file in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.id}.run.json"
    write_run(run, path)
    return Source(run, folder, path)


def changed(result: Result, **changes: Any) -> Result:
    """A result with other fields, validated anew."""
    fields = {name: getattr(result, name) for name in Result.model_fields if name != "schema_id"} | changes
    return Result(**fields)


def with_values(result: Result, values: Mapping[str, float | None], **changes: Any) -> Result:
    """A small result with these values of its figures over all, and no others."""
    figures = tuple(
        FigureRecord(name=name, value=value, unit="s", definition=f"{name}, as drawn for a test", samples=100)
        for name, value in values.items()
    )
    return changed(result, figures=figures, judgements=(), timeline=None, distributions=(), **changes)


def put_result(result: Result, folder: Path, name: str) -> str:
    """Write a result below a run's folder; returns its name from there."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    write_result(result, folder / name / "result.json")
    return f"{name}/result.json"


def many(count: int, verdicts: Sequence[Verdict] = (Verdict.PASS,)) -> list[TestRecord]:
    """So many tests in files of 50, their verdicts in turn."""
    return [
        test(
            f"tests/qualification/test_part_{number // 50:03}.py::test_a_reboot_costs_nothing[p{number % 8}-{number}]",
            verdicts[number % len(verdicts)],
        )
        for number in range(count)
    ]
