"""The order of packets over EVs: planes in turn, marked EVs passed over for a rotation, senders uncoordinated."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from testbed.mrc.evs import EvSet
from testbed.mrc.rows import EvCause

At = Callable[..., npt.NDArray[np.int64]]
Make = Callable[..., EvSet]


@pytest.mark.parametrize(("planes", "each"), [(8, 32), (8, 2), (1, 256), (3, 5)])
@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_planes_and_evs_take_turns(make: Make, planes: int, each: int, batch: int) -> None:
    evs = make(planes, each, active=256)
    taken = np.concatenate([evs.take(batch, 0) for _ in range(-(-2000 // batch))])[:2000]
    for start in range(0, 2000 - planes, planes):
        assert len(set((taken[start : start + planes] // each).tolist())) == planes
    slots = evs.slots.size
    for start in range(0, 2000 - slots, slots):
        assert len(set(taken[start : start + slots].tolist())) == slots


def test_the_first_packets_of_many_senders_do_not_meet(make: Make) -> None:
    """Were the start the same, every sender's first packet would meet on one path."""
    first = [int(make(8, 32, active=128, seed=seed).take(1, 0)[0]) for seed in range(200)]
    assert max(Counter(index // 32 for index in first).values()) < 60
    assert max(Counter(first).values()) <= 10


def test_two_senders_have_their_own_order_and_one_sender_repeats_its_own(make: Make) -> None:
    def order(seed: int, qp: int = 0) -> list[int]:
        taken: list[int] = make(8, 32, active=256, seed=seed, qp=qp).take(256, 0).tolist()
        return taken

    def within(taken: list[int], plane: int) -> list[int]:
        members = [index for index in taken if index // 32 == plane]
        first = members.index(min(members))
        return members[first:] + members[:first]

    one, other, next_qp = order(1), order(2), order(1, qp=1)
    assert order(1) == one
    for taken in (other, next_qp):
        assert taken != one
        assert all(within(taken, plane) != within(one, plane) for plane in range(8)), "only the start differs"


def test_a_marked_ev_gives_its_turn_to_another_of_its_plane(make: Make, at: At) -> None:
    evs = make(8, 4, active=32)
    evs.on_ecn(at(0), 0)
    taken = evs.take(32, 0)
    assert 0 not in taken
    assert Counter((taken // 4).tolist()) == dict.fromkeys(range(8), 4)


def test_a_plane_that_is_all_marked_misses_its_turns_and_no_more(make: Make, at: At) -> None:
    evs = make(8, 2)
    evs.on_ecn(at(0, 1), 0)
    skipped = evs.take(14, 0)
    assert Counter((skipped // 2).tolist()) == dict.fromkeys(range(1, 8), 2)
    evs.take(16, 0)
    assert Counter((evs.take(80, 0) // 2).tolist()) == dict.fromkeys(range(8), 10)


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
def test_a_marked_ev_is_back_after_one_rotation(make: Make, at: At, batch: int) -> None:
    """Within a batch's length; but a batch longer than a rotation does not hold it back."""
    evs = make(8, 2)
    evs.take(5, 0)
    evs.on_ecn(at(3), 0)
    evs.take_events()
    taken = np.concatenate([evs.take(batch, 0) for _ in range(128 // batch)])
    first = int(np.flatnonzero(taken == 3)[0])
    assert 16 <= first < 16 + 16 + min(batch, 16)
    assert [row["cause"] for row in evs.take_events()] == [EvCause.ROTATION]


def test_at_most_one_is_restored_for_each_packet(make: Make, at: At) -> None:
    evs = make(8, 4, active=32, ev_min_active=1)
    evs.on_ecn(at(*range(20)), 0)
    skipped = []
    for _ in range(60):
        evs.take(1, 0)
        skipped.append(int((evs.states == 1).sum()))
    assert set(np.diff(skipped).tolist()) == {0, -1}
    assert (skipped[31], skipped[32], skipped[51], skipped[52]) == (20, 19, 0, 0)
    order = [int(row["ev"]) for row in evs.take_events() if row["cause"] == EvCause.ROTATION]
    assert order == [(index // 4 << 8) + index % 4 for index in range(20)], "first marked, first restored"


def test_a_second_mark_does_not_prolong(make: Make, at: At) -> None:
    evs = make(8, 2)
    evs.on_ecn(at(3), 0)
    evs.take(10, 0)
    evs.on_ecn(at(3), 0)
    evs.take(6, 0)
    evs.take(1, 0)
    assert evs.states[3] == 0


def test_an_ev_lost_while_marked_is_not_restored_by_rotation(make: Make, at: At) -> None:
    evs = make(8, 2)
    evs.on_ecn(at(3), 0)
    evs.on_loss(at(3), 0)
    for _ in range(10):
        evs.take(16, 0)
    assert evs.states[3] == 2


def test_changes_do_not_lose_the_place_in_the_rotation(make: Make, at: At) -> None:
    """Marks on one plane between all packets leave the turn of all other planes what it was."""
    quiet, busy = make(8, 32, active=256), make(8, 32, active=256)
    expected = quiet.take(4000, 0)
    taken = []
    for step in range(4000):
        busy.on_ecn(at(step % 31), 0)
        taken.append(int(busy.take(1, 0)[0]))
    others = expected >= 32
    assert (np.array(taken)[others] == expected[others]).all()
    assert (np.array(taken)[~others] < 32).all()


@pytest.mark.parametrize("count", [0, 1, 64])
def test_as_many_as_asked_for(make: Make, at: At, count: int) -> None:
    evs = make(8, 2)
    assert evs.take(count, 0).shape == (count,)
    evs.on_ecn(at(2), 0)
    assert evs.take(count, 0).shape == (count,)


def test_what_is_taken_is_the_callers(make: Make) -> None:
    evs = make(8, 2)
    taken = evs.take(16, 0)
    kept = taken.copy()
    taken[:] = 99
    assert evs.take(16, 0).tolist() == kept.tolist()


class TestFresh:
    def test_differs_from_what_was_lost(self, make: Make) -> None:
        evs, twin = make(8, 4), make(8, 4)
        for _ in range(50):
            avoid = twin.take(24, 0)
            assert not (evs.take_fresh(avoid, 0) == avoid).any()

    def test_keeps_to_the_plane_whose_turn_it_is(self, make: Make) -> None:
        evs, twin = make(8, 4), make(8, 4)
        avoid = twin.take(64, 0)
        assert (evs.take_fresh(avoid, 0) // 4 == avoid // 4).all()

    def test_goes_to_another_plane_where_the_plane_has_no_other(self, make: Make) -> None:
        evs, twin = make(8, 1), make(8, 1)
        avoid = twin.take(8, 0)
        fresh = evs.take_fresh(avoid, 0)
        assert fresh.size == 8
        assert not (fresh == avoid).any()

    def test_repeats_only_where_there_is_no_other(self, make: Make, at: At) -> None:
        assert make(1, 1).take_fresh(at(0, 0), 0).tolist() == [0, 0]

    def test_never_an_ev_that_is_out(self, make: Make, at: At) -> None:
        evs = make(2, 2)
        evs.on_ecn(at(1), 0)
        assert 1 not in evs.take_fresh(at(0, 0, 0), 0)

    def test_nothing_where_nothing_is_usable(self, make: Make, at: At) -> None:
        evs = make(1, 2)
        evs.set_port(0, False, EvCause.LOCAL_PORT, 0)
        assert evs.take_fresh(at(0, 1), 0).size == 0
