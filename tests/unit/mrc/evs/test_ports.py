"""A port goes down and comes back, at this end or the peer's: its plane is left, and wholly used again."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from testbed.mrc.evs import EvSet
from testbed.mrc.rows import EvCause, EvState
from testbed.mrc.settings import EvSettings

At = Callable[..., npt.NDArray[np.int64]]
Make = Callable[..., EvSet]
Story = Callable[[EvSet], list[tuple[int, str, str, str]]]
LOCAL, PEER = EvCause.LOCAL_PORT, EvCause.PEER_PORT
TIMEOUT = EvSettings().probe_timeout_ns


@pytest.mark.parametrize("cause", [LOCAL, PEER])
@pytest.mark.parametrize("each", [2, 32])
def test_the_other_planes_share_equally_and_return_means_full_use(make: Make, cause: EvCause, each: int) -> None:
    evs = make(8, each)
    evs.take(33, 0)
    evs.set_port(3, False, cause, 0)
    assert evs.usable_planes.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert Counter((evs.take(700, 0) // each).tolist()) == {plane: 100 for plane in range(8) if plane != 3}
    evs.set_port(3, True, cause, 0)
    assert evs.usable_planes.tolist() == list(range(8))
    assert Counter((evs.take(800, 0) // each).tolist()) == dict.fromkeys(range(8), 100)
    assert (evs.states == EvState.GOOD).all()


def test_a_plane_is_used_only_while_both_ends_are_up(make: Make) -> None:
    evs = make(2, 2)
    evs.set_port(0, False, LOCAL, 1)
    evs.set_port(0, False, PEER, 2)
    evs.set_port(0, True, LOCAL, 3)
    assert evs.usable_planes.tolist() == [1]
    evs.set_port(0, True, PEER, 4)
    assert evs.usable_planes.tolist() == [0, 1]
    assert [tuple(row) for row in evs.take_events()] == [
        (1, 0, 0xFFFFFFFF, 0, 1, 0, LOCAL),
        (4, 0, 0xFFFFFFFF, 0, 0, 1, PEER),
    ]


def test_saying_it_twice_changes_nothing(make: Make) -> None:
    evs = make(2, 2)
    evs.set_port(0, True, LOCAL, 0)
    evs.set_port(0, False, LOCAL, 0)
    evs.set_port(0, False, LOCAL, 0)
    assert evs.take_events().size == 1


def test_all_ports_down_leaves_nothing_and_one_back_is_enough(make: Make) -> None:
    evs = make(2, 2)
    evs.set_port(0, False, LOCAL, 0)
    evs.set_port(1, False, PEER, 0)
    assert evs.take(10, 0).size == 0
    assert evs.usable_planes.size == 0
    evs.set_port(1, True, PEER, 0)
    assert sorted(evs.take(4, 0).tolist()) == [2, 2, 3, 3]


def test_a_plane_without_evs_is_ignored(make: Make) -> None:
    evs = make(2, 2)
    evs.set_port(5, False, PEER, 0)
    assert evs.take_events().size == 0
    assert evs.usable_planes.tolist() == [0, 1]


def test_only_ports_are_a_cause(make: Make) -> None:
    with pytest.raises(ValueError, match="LOCAL_PORT or PEER_PORT"):
        make().set_port(0, False, EvCause.LOSS, 0)


@pytest.mark.parametrize("event", ["on_ecn", "on_trim", "on_loss", "on_timeout", "on_always_skip"])
def test_what_is_seen_of_a_plane_that_is_down_does_nothing(make: Make, at: At, event: str) -> None:
    evs = make(2, 2)
    evs.set_port(0, False, LOCAL, 0)
    evs.take_events()
    getattr(evs, event)(at(0, 1), 0)
    assert (evs.states == EvState.GOOD).all()
    assert evs.take_events().size == 0


@pytest.mark.parametrize("event", ["on_loss", "on_timeout"])
def test_losses_just_before_a_port_went_down_are_forgiven_on_its_return(
    make: Make, at: At, story: Story, event: str
) -> None:
    """The peer's port fails first, its packets are missed next, and its port status comes last."""
    evs = make(2, 2)
    getattr(evs, event)(at(0), 1000)
    evs.set_port(0, False, PEER, 1000 + TIMEOUT)
    evs.take_events()
    evs.set_port(0, True, PEER, 10**10)
    assert story(evs) == [(0xFFFFFFFF, "GOOD", "SKIP", "PEER_PORT"), (0, "ASSUMED_BAD", "GOOD", "PEER_PORT")]
    assert sorted(evs.take(4, 0).tolist()) == [0, 1, 2, 3]
    assert evs.next_due_ns() is None


def test_older_losses_are_not_forgiven(make: Make, at: At) -> None:
    evs = make(2, 2)
    evs.on_loss(at(0), 1000)
    evs.set_port(0, False, PEER, 1001 + TIMEOUT)
    evs.set_port(0, True, PEER, 10**10)
    assert evs.states[0] == EvState.ASSUMED_BAD


def test_what_the_receiver_asked_for_is_not_forgiven(make: Make, at: At) -> None:
    evs = make(2, 2)
    evs.on_always_skip(at(0), 1000)
    evs.set_port(0, False, PEER, 1001)
    evs.set_port(0, True, PEER, 10**10)
    assert evs.states[0] == EvState.ASSUMED_BAD


def test_forgiveness_does_not_lift_what_the_controller_denied_meanwhile(make: Make, at: At, story: Story) -> None:
    evs = make(2, 2)
    evs.on_loss(at(0, 1), 1000)
    evs.set_port(0, False, PEER, 1001)
    evs.set_denied(at(0, 1), True, 1002)
    evs.set_denied(at(1), False, 1003)
    evs.take_events()
    evs.set_port(0, True, PEER, 1004)
    assert evs.states.tolist() == [EvState.DENIED, EvState.GOOD, EvState.GOOD, EvState.GOOD]
    assert len(story(evs)) == 1, "only the plane has changed"


def test_forgiveness_does_not_outlive_the_outage(make: Make, at: At, restore: Callable[..., int]) -> None:
    evs = make(2, 2)
    evs.on_loss(at(0), 1000)
    evs.set_port(0, False, PEER, 1001)
    evs.set_port(0, True, PEER, 1002)
    evs.on_loss(at(0), 10**10)
    evs.set_port(0, False, PEER, 10**12)
    evs.set_port(0, True, PEER, 10**12)
    assert evs.states[0] == EvState.ASSUMED_BAD
    restore(evs, 0, 10**12)
    assert evs.states[0] == EvState.GOOD


def test_a_mark_ends_by_rotation_also_while_the_port_is_down(make: Make, at: At) -> None:
    evs = make(2, 2)
    evs.on_ecn(at(0), 0)
    evs.set_port(0, False, LOCAL, 0)
    for _ in range(6):
        assert evs.take(1, 0)[0] >= 2
    assert evs.states[0] == EvState.GOOD


def test_on_return_the_slots_are_drawn_anew(make: Make) -> None:
    evs = make(2, 64, active=32)
    before = {index for index in evs.slots.tolist() if index < 64}
    evs.set_port(0, False, LOCAL, 0)
    evs.set_port(0, True, LOCAL, 0)
    after = {index for index in evs.slots.tolist() if index < 64}
    assert len(after) == len(before) == 16
    assert after != before
