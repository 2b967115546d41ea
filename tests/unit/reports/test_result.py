"""What a result refuses, and what it makes of things that come from outside."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from testbed.lab import Lab
from testbed.measure.limits import Judgement, Limit, Outcome
from testbed.measure.provenance import machine_here, versions_here
from testbed.measure.result import Result, created_from_ns
from testbed.measure.result_parts import (
    ArtefactRecord,
    ClockRecord,
    EventRecord,
    FaultRecord,
    FigureRecord,
    JudgementRecord,
    Verdict,
)
from testbed.measure.texts import clipped, visible
from testbed.pressure import PressureReading
from testbed.record import ClockReading, Event, Figure
from tests.unit.reports.runs import Run, result


def changed(given: Result, **changes: Any) -> Result:
    """The result with other fields, checked as when it is made."""
    return Result.model_validate_json(given.model_copy(update=changes).model_dump_json(by_alias=True))


def test_the_lab_can_be_read_back_from_a_result(reboot: Result) -> None:
    assert Lab.parse(json.dumps(reboot.lab)) == Lab.load("laptop")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_is_a_finite_number_or_nothing(value: float) -> None:
    figure = Figure("outage", value, "s", "RFC 6201", 10)
    with pytest.raises(ValidationError, match="finite"):
        FigureRecord.of(figure)


def test_nan_in_a_file_is_refused_too(reboot: Result) -> None:
    document = json.loads(reboot.model_dump_json(by_alias=True))
    document["figures"][0]["value"] = math.nan
    text = json.dumps(document)
    assert "NaN" in text
    with pytest.raises(ValidationError, match="finite"):
        Result.model_validate_json(text)


def test_unknown_keys_are_refused(reboot: Result) -> None:
    text = reboot.model_dump_json(by_alias=True)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Result.model_validate_json(text.replace('"verdict"', '"verdit":"pass","verdict"', 1))


def test_a_pass_needs_every_limit_kept(reboot: Result) -> None:
    assert reboot.verdict is Verdict.PASS
    for outcome in (Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_RUN):
        broken = reboot.judgements[0].model_copy(update={"outcome": outcome})
        with pytest.raises(ValidationError, match="a pass, although 1 of 3 limits"):
            changed(reboot, judgements=(broken, *reboot.judgements[1:]))


def test_a_pass_needs_every_packet_explained(reboot: Result) -> None:
    with pytest.raises(ValidationError, match="2 packets are unexplained"):
        changed(reboot, unexplained_packets=2)


def test_a_pass_needs_its_samples(reboot: Result) -> None:
    with pytest.raises(ValidationError, match="without their samples"):
        changed(reboot, samples=())
    assert changed(reboot, samples=(), verdict=Verdict.UNKNOWN).verdict is Verdict.UNKNOWN


def test_all_but_a_pass_needs_a_reason(reboot: Result) -> None:
    with pytest.raises(ValidationError, match="no reason"):
        changed(reboot, verdict=Verdict.NOT_RUN, reason="")


def test_the_verdict_does_not_depend_on_the_heal(reboot: Result) -> None:
    fault = reboot.faults[0].model_copy(update={"healed": False})
    unclear = reboot.faults[0].model_copy(update={"healed": None})
    found = changed(reboot, faults=(fault, unclear, *reboot.faults))
    assert found.verdict is Verdict.PASS
    assert found.unhealed_faults == (fault, unclear)


def test_a_judgement_points_to_a_figure_that_is_there(reboot: Result) -> None:
    astray = reboot.judgements[0].model_copy(update={"figure": len(reboot.figures)})
    with pytest.raises(ValidationError, match="a judgement of figure"):
        changed(reboot, judgements=(astray,))


def test_the_time_it_was_made_is_utc(reboot: Result) -> None:
    text = reboot.model_dump_json(by_alias=True)
    assert f'"created":"{reboot.created:%Y-%m-%dT%H:%M:%S}' in text
    moved = text.replace('Z","command"', '+02:00","command"', 1)
    assert moved != text
    with pytest.raises(ValidationError, match="not in UTC"):
        Result.model_validate_json(moved)
    assert created_from_ns(1_760_000_000_123_456_789).isoformat() == "2025-10-09T08:53:20.123456+00:00"


def test_a_clock_record_agrees_with_its_readings() -> None:
    record = ClockRecord.between(ClockReading(10**18, 5), ClockReading(10**18 + 1_700, 1_005))
    assert record.step_ns == 700
    assert record.elapsed_s == pytest.approx(1e-6)
    with pytest.raises(ValidationError, match="the readings say 700"):
        ClockRecord.model_validate(record.model_dump() | {"step_ns": 0})


def test_artefacts_lie_below_the_result() -> None:
    assert ArtefactRecord(path="captures/p3-t1-0.pcap", kind="capture").path
    for path in ("/etc/passwd", "../other/log", "a/../../b", "", "a//b", "a\nb", ".hidden", "a/.."):
        with pytest.raises(ValidationError):
            ArtefactRecord(path=path, kind="log")


def test_hostile_text_is_made_visible_and_bounded(run: Run, tmp_path: Path) -> None:
    nasty = "\x1b[2J\x00\u202egpj.exe\udcff<script>"
    found = result(run, tmp_path, title=nasty, reason="x" * 10_000_000)
    assert found.title == r"\x1b[2J\x00\u202egpj.exe\udcff<script>"
    assert len(found.reason) <= 2000
    assert "left out" in found.reason
    assert Result.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_text_that_grows_when_cleaned_is_bounded_again() -> None:
    event = EventRecord.of(Event(1, "fault", "\x00" * 199, "issued"))
    assert len(event.subject) <= 200


def test_details_of_events_become_json() -> None:
    loop: list[Any] = []
    loop.append(loop)
    event = Event(1, "fault", "h0", "issued", detail={"nan": math.nan, "set": {1}, "object": Path("a"), "loop": loop})
    detail = EventRecord.of(event).detail
    assert detail["nan"] == "nan"
    assert detail["set"] == [1]
    assert detail["object"] == "a"
    huge = EventRecord.of(Event(1, "fault", "h0", "issued", detail={str(n): "x" * 900 for n in range(1000)}))
    assert list(huge.detail) == ["clipped"]
    assert len(str(huge.detail)) < 4100


def test_judgements_point_to_equal_figures() -> None:
    def judgement(figure: Figure | None) -> Judgement:
        return Judgement(Limit("outage", "<=", 1.0, "s"), figure, Outcome.UNKNOWN)

    first, second = Figure("outage", 1.0, "s", "d", 5), Figure("outage", 1.0, "s", "d", 5, scope="plane 1")
    judged = [judgement(figure) for figure in (second, None, first)]
    assert [record.figure for record in JudgementRecord.all_of(judged, [first, second])] == [1, None, 0]
    with pytest.raises(KeyError):
        JudgementRecord.all_of(judged, [first])


def test_clipping_says_how_much_is_gone() -> None:
    assert clipped("a" * 20, 20) == "a" * 20
    cut = clipped("a" * 500 + "end", 100)
    assert len(cut) <= 100
    assert "403 characters or more left out" in cut
    assert cut.endswith("end")
    assert visible("plain ü\n\ttext") == "plain ü\n\ttext"


def test_this_machine_describes_itself() -> None:
    before = PressureReading.take()
    assert machine_here().cpus >= 1
    assert machine_here().memory_bytes > 1 << 20
    assert versions_here().packages["numpy"] != "not installed"
    pressure = PressureReading.take().since(before)
    assert pressure.elapsed_s > 0
    assert pressure.cpu_headroom is None or 0 <= pressure.cpu_headroom <= 1


def test_pressure_the_kernel_does_not_tell_is_unknown() -> None:
    blind = PressureReading(0, None, None, None, None)
    found = PressureReading(2_000_000_000, 5, 5, 5, 5).since(blind)
    assert (found.elapsed_s, found.cpu_some_s, found.cpu_full_s, found.cpu_headroom) == (2.0, None, None, None)
    known = PressureReading(1, 2_000, 1_000, 60, 100).since(PressureReading(0, 0, 0, 10, 0))
    assert (known.cpu_some_s, known.cpu_full_s, known.cpu_headroom) == (0.002, 0.001, 0.5)


def test_a_fault_without_an_answer_is_not_healed() -> None:
    with pytest.raises(ValidationError):
        FaultRecord(kind="reboot", subject="p3-t1-0", begin_ns=1)  # type: ignore[call-arg]
