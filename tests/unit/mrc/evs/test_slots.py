"""The active set: equal for each plane, refilled from the same plane, repeated where a plane has too few."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from testbed.errors import UsageError
from testbed.mrc.evs import EvSet
from testbed.mrc.settings import EvSettings

At = Callable[..., npt.NDArray[np.int64]]
Make = Callable[..., EvSet]


def held(evs: EvSet, plane: int, each: int) -> list[int]:
    """How many slots hold each EV of a plane."""
    slots = evs.slots
    return [int((slots == index).sum()) for index in range(plane * each, (plane + 1) * each)]


@pytest.mark.parametrize(
    ("planes", "each", "active", "slots"),
    [
        pytest.param(8, 32, 128, 128, id="256 EVs in 8 planes, half of them active"),
        pytest.param(8, 32, 256, 256, id="256 EVs in 8 planes, all active"),
        pytest.param(8, 2, 128, 16, id="16 EVs in 8 planes"),
        pytest.param(1, 256, 128, 128, id="one plane"),
        pytest.param(1, 1, 128, 1, id="one EV"),
        pytest.param(8, 4, 3, 8, id="fewer slots asked for than planes: one for each"),
        pytest.param(3, 50, 128, 126, id="slots that planes do not divide"),
    ],
)
def test_active_set_is_equal_per_plane(make: Make, planes: int, each: int, active: int, slots: int) -> None:
    evs = make(planes, each, active=active)
    assert evs.slots.size == slots
    assert len(set(evs.slots.tolist())) == slots, "an EV holds two slots though there are enough"
    assert Counter((evs.slots // each).tolist()) == dict.fromkeys(range(planes), slots // planes)
    assert sorted(evs.take(slots, 0).tolist()) == sorted(evs.slots.tolist())


def test_a_plane_with_fewer_evs_repeats_them() -> None:
    planes = np.array([0] * 10 + [1] * 2, "u1")
    evs = EvSet(np.arange(12, dtype="u4"), planes, EvSettings(active=12), seed=3)
    counts = np.bincount(evs.slots, minlength=12)
    assert (counts[:10].sum(), counts[:10].max()) == (6, 1)
    assert counts[10:].tolist() == [3, 3]
    assert (planes[evs.take(120, 0)] == 0).sum() == 60


def test_a_retired_ev_is_replaced_from_the_backup_set_of_its_plane(make: Make, at: At) -> None:
    evs = make(8, 32, active=128)
    victim = int(evs.slots[0])
    before = set(evs.slots.tolist())
    evs.on_loss(at(victim), 5)
    (joined,) = set(evs.slots.tolist()) - before
    assert before - set(evs.slots.tolist()) == {victim}
    assert joined // 32 == victim // 32
    rows = evs.take_events()
    assert [(row["ev"] & 0xFF, row["before"], row["after"], row["cause"]) for row in rows] == [
        (victim % 32, 0, 2, 3),
        (joined % 32, 0, 0, 3),
    ]


def test_the_backup_is_chosen_at_random(make: Make, at: At) -> None:
    chosen = set()
    for seed in range(20):
        evs = make(1, 32, active=8, seed=seed)
        before = set(evs.slots.tolist())
        evs.on_loss(at(evs.slots[0]), 0)
        chosen |= set(evs.slots.tolist()) - before
    assert len(chosen) > 5


def test_a_good_backup_goes_before_one_in_skip(make: Make, at: At) -> None:
    evs = make(1, 8, active=4)
    backup = [index for index in range(8) if index not in evs.slots]
    evs.on_ecn(at(*backup[:3]), 0)
    evs.on_loss(evs.slots[:1], 0)
    assert backup[3] in evs.slots


def test_without_a_backup_another_of_the_plane_holds_two_slots_and_planes_stay_equal(make: Make, at: At) -> None:
    evs = make(8, 2)
    evs.on_loss(at(6), 0)
    assert held(evs, 3, 2) == [0, 2]
    assert evs.slots.size == 16
    assert Counter((evs.take(160, 0) // 2).tolist()) == dict.fromkeys(range(8), 20)


def test_repetitions_are_spread_over_what_is_left(make: Make, at: At) -> None:
    evs = make(2, 6)
    evs.on_loss(at(0, 1, 2), 0)
    assert held(evs, 0, 6) == [0, 0, 0, 2, 2, 2]


def test_a_restored_ev_takes_the_slot_of_a_repetition(make: Make, at: At, restore: Callable[..., int]) -> None:
    evs = make(8, 2)
    evs.on_loss(at(6), 0)
    restore(evs, 6, 0)
    assert held(evs, 3, 2) == [1, 1]


def test_a_restored_ev_joins_the_backup_set_where_its_place_is_taken(
    make: Make, at: At, restore: Callable[..., int]
) -> None:
    evs = make(8, 32, active=128)
    victim = int(evs.slots[0])
    evs.on_loss(at(victim), 0)
    slots = evs.slots.tolist()
    restore(evs, victim, 0)
    assert evs.states[victim] == 0
    assert evs.slots.tolist() == slots


def test_a_plane_without_any_ev_is_left_out_until_one_returns(make: Make, at: At, restore: Callable[..., int]) -> None:
    evs = make(8, 2)
    evs.on_loss(at(6, 7), 0)
    assert evs.usable_planes.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert Counter((evs.take(140, 0) // 2).tolist()) == {plane: 20 for plane in range(8) if plane != 3}
    evs.probes_due(0)
    for step in range(3):
        now = step * 20_000_000
        evs.probes_due(now)
        evs.on_probe_answer(7, now + 1)
    assert held(evs, 3, 2) == [0, 2]
    assert evs.usable_planes.tolist() == list(range(8))
    assert Counter((evs.take(160, 0) // 2).tolist()) == dict.fromkeys(range(8), 20)


def test_index_of(make: Make) -> None:
    evs = make(8, 2)
    assert evs.index_of(np.array([0x701, 0, 0x702, 0xFFFFFFFF, 0x300], "u4")).tolist() == [15, 0, -1, -1, 6]
    shuffled = EvSet(np.array([9, 2, 5], "u4"), np.zeros(3, "u1"), EvSettings(), seed=0)
    assert shuffled.index_of(np.array([2, 5, 9, 7], "u4")).tolist() == [1, 2, 0, -1]


def test_states_cannot_be_written_from_outside(make: Make) -> None:
    evs = make()
    with pytest.raises(ValueError, match="read-only"):
        evs.states[0] = 3


@pytest.mark.parametrize(
    ("evs", "planes", "settings", "says"),
    [
        pytest.param([], [], {}, "needs EVs", id="no EVs"),
        pytest.param([1, 2], [0], {}, r"shape \(2,\), planes of shape \(1,\)", id="planes that do not match"),
        pytest.param([1, 0x1F, 0x1F], [0, 0, 1], {}, "0x1f, 2 times", id="an EV twice"),
        pytest.param([1], [0], {"ev_min_active": 0}, "settings.evs.ev_min_active", id="no floor"),
        pytest.param([1], [0], {"probe_interval_ns": -1}, "settings.evs.probe_interval_ns", id="a negative time"),
    ],
)
def test_what_makes_no_sense_is_refused(evs: list[int], planes: list[int], settings: dict[str, int], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        EvSet(np.array(evs, "u4"), np.array(planes, "u1"), EvSettings(**settings), seed=0)
