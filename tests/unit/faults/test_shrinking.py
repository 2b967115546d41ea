"""Shrinking: the planted cause is found, whatever stands around it, and how often it fails is told."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.faults.schedule import Entry, Schedule
from testbed.faults.shrinking import shrink
from testbed.faults.spec import FaultSpec


def thirty(length: int = 30) -> Schedule:
    entries = [
        Entry(FaultSpec("reboot", f"p{n % 8}-t1-{n}", {"kind": "cold"}), 0.1, at_s=float(n)) for n in range(length)
    ]
    return Schedule.of(*entries, length_s=float(length + 1))


def needing(*numbers: int) -> Callable[[Schedule], bool]:
    """Fails while all of these are there."""
    wanted = {f"p{n % 8}-t1-{n}" for n in numbers}
    return lambda schedule: wanted <= {event.spec.target for event in schedule.events}


@pytest.mark.parametrize("cause", range(0, 30, 7))
def test_a_single_planted_cause_in_thirty_events_is_found(cause: int) -> None:
    shrunk = shrink(thirty(), needing(cause))
    assert [event.start_s for event in shrunk.schedule.events] == [float(cause)]
    assert (shrunk.failed, shrunk.confirmed, shrunk.exhausted) == (5, 5, False)
    assert shrunk.runs <= 30
    assert shrunk.line().startswith("30 events shrunk to 1 in ")


@given(st.sets(st.integers(0, 29), max_size=4))
def test_any_conjunction_is_found_and_nothing_beside_it(causes: set[int]) -> None:
    shrunk = shrink(thirty(), needing(*causes), most_runs=10_000)
    assert {int(event.start_s) for event in shrunk.schedule.events} == causes


def test_what_fails_now_and_then_is_tried_often_enough_and_its_share_is_told() -> None:
    rng = random.Random(3)
    fails = needing(11)
    shrunk = shrink(thirty(), lambda part: fails(part) and rng.random() < 0.5, tries=8, most_runs=2_000, confirm=40)
    assert [event.start_s for event in shrunk.schedule.events] == [11.0]
    assert 8 <= shrunk.failed <= 32


def test_it_ends_when_no_more_runs_are_allowed_and_says_so() -> None:
    shrunk = shrink(thirty(), needing(3, 19, 27), most_runs=6, confirm=1)
    assert shrunk.exhausted
    assert shrunk.runs == 7
    assert {3, 19, 27} <= {int(event.start_s) for event in shrunk.schedule.events}
    assert "no more runs were allowed" in shrunk.line()


def test_a_check_that_fails_without_any_fault_is_told_as_that() -> None:
    shrunk = shrink(thirty(), lambda _: True)
    assert shrunk.schedule.events == ()
    assert shrunk.runs == 6
