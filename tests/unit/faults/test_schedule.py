"""Schedules: laid out from a seed, read from files and written to them, with errors by line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.faults.schedule import Entry, Planned, Schedule
from testbed.faults.spec import FaultSpec

CUT = FaultSpec("link_down", "p0-t0-0~p0-t1-0", {})
REBOOT = FaultSpec("reboot", "p1-t1-0", {"kind": "cold"})
LOSS = FaultSpec("loss", "h0:p1", {"every": 10, "offset": 3})

TEXT = """\
length: 60s
seed: 7
faults:
  - {at: 5s, for: 500ms, fault: link_down, target: p0-t0-0~p0-t1-0}
  - every: 10s
    jitter: 2s
    for: 200ms
    fault: reboot
    target: p1-t1-0
    with: {kind: cold}
"""


def test_a_file_is_laid_out_in_order_of_time() -> None:
    schedule = Schedule.parse(TEXT)
    assert (schedule.length_s, schedule.seed) == (60.0, 7)
    assert [event.start_s for event in schedule.events] == sorted(event.start_s for event in schedule.events)
    assert Planned(5.0, 0.5, CUT) in schedule.events
    reboots = [event for event in schedule.events if event.spec == REBOOT]
    assert len(reboots) == 5
    for number, event in enumerate(reboots, start=1):
        assert abs(event.start_s - 10 * number) <= 2
        assert event.for_s == 0.2


def test_the_same_seed_gives_the_same_events_and_another_seed_others() -> None:
    assert Schedule.parse(TEXT) == Schedule.parse(TEXT)
    assert Schedule.parse(TEXT).events != Schedule.parse(TEXT.replace("seed: 7", "seed: 8")).events


def test_a_longer_schedule_begins_as_a_shorter_one() -> None:
    short, long = Schedule.parse(TEXT), Schedule.parse(TEXT.replace("60s", "90s"))
    assert long.events[: len(short.events)] == short.events


@given(
    st.lists(
        st.tuples(st.integers(0, 59_999), st.integers(1, 5_000), st.sampled_from([CUT, REBOOT, LOSS])), max_size=20
    ),
    st.integers(0, 2**63),
)
def test_what_is_written_is_read_again(events: list[tuple[int, int, FaultSpec]], seed: int) -> None:
    entries = [Entry(spec, for_ms / 1000, at_s=at_ms / 1000) for at_ms, for_ms, spec in events]
    schedule = Schedule.of(*entries, length_s=60, seed=seed)
    assert Schedule.parse(schedule.to_yaml()) == schedule


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1", ["schedule:1", "length is missing"]),
        ("length: 10", ["schedule:1", "unit"]),
        ("length: 10s\nfualts: []", ["schedule:2", "faults"]),
        ("length: 10s\nfaults: 3", ["schedule:2", "a list"]),
        ("length: 10s\nseed: x", ["schedule:2", "whole number"]),
        ("length: 10s\nfaults:\n  - 3", ["schedule:3", "a mapping"]),
        ("length: 10s\nfaults:\n  - {at: 1s, fault: reboot, target: p0-t1-0}", ["schedule:3", "no end"]),
        ("length: 10s\nfaults:\n  - {at: 1s, for: 1s, target: p0-t1-0}", ["schedule:3", "names no fault"]),
        ("length: 10s\nfaults:\n  - {for: 1s, fault: reboot, target: p0-t1-0}", ["schedule:3", "no time"]),
        ("length: 10s\nfaults:\n  - {at: 1s, for: 0s, fault: reboot, target: p0-t1-0}", ["schedule:3", "above 0"]),
        (
            "length: 10s\nfaults:\n  - {every: 1s, for: 900ms, jitter: 100ms, fault: reboot, target: p0-t1-0}",
            ["schedule:3", "before it has healed"],
        ),
        ("length: 10s\nfaults:\n  - {at: 1s, for: 1s, fault: rebot, target: p0-t1-0}", ["schedule:3", "reboot"]),
        (
            "length: 10s\nfaults:\n  - {at: 1s, for: 1s, fault: loss, target: h0:p1, share: 0.1}",
            ["schedule:3", "share", "under `with`"],
        ),
        (
            "length: 10s\nfaults:\n  - {at: 1s, for: 1s, fault: loss, target: h0:p1, with: {shar: 0.1}}",
            ["schedule:3", "nearest:  share"],
        ),
        ("length: 10000s\nfaults:\n  - {every: 1us, for: 1ns, fault: reboot, target: p0-t1-0}", ["too long"]),
        ("{", ["schedule:1"]),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as told:
        Schedule.parse(text)
    for word in words:
        assert word in str(told.value), str(told.value)
