"""Random schedules: the same from the same seed, and always within their limits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import UsageError
from testbed.fabric.protocols import Capabilities
from testbed.faults.nemesis import WEIGHTS, Limits, nemesis
from testbed.faults.schedule import Planned, Schedule
from testbed.faults.spec import KINDS
from testbed.lab import Lab

LAPTOP = Lab.load("laptop")


def planes_of(event: Planned) -> set[int]:
    """By the names in it."""
    target = event.spec.target
    return {int((target.partition(":p")[2] or target[1:]).split("~")[0].split("-")[0])}


def test_the_same_seed_gives_the_same_schedule_and_another_one_another() -> None:
    first = nemesis(LAPTOP, seed=1, length_s=60)
    assert first == nemesis(LAPTOP, seed=1, length_s=60)
    assert first.events != nemesis(LAPTOP, seed=2, length_s=60).events
    assert Schedule.parse(first.to_yaml()) == first


@settings(max_examples=40)
@given(st.integers(0, 2**40), st.integers(1, 6), st.integers(0, 7))
def test_limits_hold_at_every_moment(seed: int, at_once: int, whole_planes: int) -> None:
    limits = Limits(at_once=at_once, whole_planes=whole_planes, gap_s=0.1)
    schedule = nemesis(LAPTOP, seed=seed, length_s=20, limits=limits)
    assert schedule.events
    for moment in (event.start_s for event in schedule.events):
        going = [event for event in schedule.events if event.start_s <= moment < event.end_s]
        assert len(going) <= at_once
        assert len(set().union(*map(planes_of, going))) <= LAPTOP.planes - whole_planes
        down = [event.spec.target for event in going if event.spec.kind in ("reboot", "power_loss")]
        assert len(set(down)) == len(down)
    for event in schedule.events:
        assert 0 < event.for_s <= limits.longest_s
        assert event.end_s <= schedule.length_s


def test_every_kind_comes_as_often_as_its_weight_says() -> None:
    schedule = nemesis(LAPTOP, seed=3, length_s=4000, limits=Limits(at_once=50, longest_s=0.1))
    seen = Counter(event.spec.kind for event in schedule.events)
    assert set(seen) == set(WEIGHTS)
    total, weight = len(schedule.events), sum(WEIGHTS.values())
    for kind, count in seen.items():
        assert count / total == pytest.approx(WEIGHTS[kind] / weight, rel=0.25)


def test_every_target_is_of_the_lab_and_every_parameter_of_the_kind() -> None:
    for event in nemesis(LAPTOP, seed=4, length_s=300).events:
        assert event.spec == event.spec.checked()


def test_what_a_fabric_cannot_do_is_left_out() -> None:
    able = Capabilities(frozenset(kind.needs for kind in KINDS.values()) - {"delay"}, {"delay": "no netem"})
    schedule = nemesis(LAPTOP, seed=5, length_s=500, capabilities=able)
    assert "delay" not in {event.spec.kind for event in schedule.events}


@pytest.mark.parametrize(
    ("weights", "limits", "words"),
    [
        ({"lnik_down": 1.0}, Limits(), "nearest:  link_down"),
        ({"kill": 1.0}, Limits(), "kill cannot be drawn"),
        ({"loss": -1.0}, Limits(), "below 0"),
        ({"loss": 0.0}, Limits(), "no kind of fault is left"),
        (None, Limits(whole_planes=8), "every plane is to stay whole"),
    ],
)
def test_what_cannot_be_drawn_is_refused(weights: dict[str, float] | None, limits: Limits, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        nemesis(LAPTOP, seed=1, length_s=10, weights=weights, limits=limits)
