"""The floor under the active set, and the controller's denylist above it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from testbed.mrc.evs import EvSet
from testbed.mrc.rows import EvCause, EvState

At = Callable[..., npt.NDArray[np.int64]]
Make = Callable[..., EvSet]
Story = Callable[[EvSet], list[tuple[int, str, str, str]]]


class TestFloor:
    @pytest.mark.parametrize("floor", [1, 5, 16])
    def test_no_more_are_retired_than_the_floor_allows(self, make: Make, at: At, floor: int) -> None:
        evs = make(8, 2, ev_min_active=floor)
        evs.on_loss(at(*range(16)), 0)
        assert (evs.states == EvState.GOOD).sum() == floor
        causes = evs.take_events()["cause"]
        assert (causes == EvCause.LOSS).sum() == 16 - floor
        assert (causes == EvCause.FLOOR).sum() == floor

    @pytest.mark.parametrize("floor", [1, 5, 16])
    def test_no_more_are_skipped_than_the_floor_allows(self, make: Make, at: At, floor: int) -> None:
        evs = make(8, 2, ev_min_active=floor)
        evs.on_ecn(at(*range(16)), 0)
        assert (evs.states == EvState.GOOD).sum() == floor

    def test_a_refusal_is_said(self, make: Make, at: At, story: Story) -> None:
        evs = make(1, 2)
        evs.on_loss(at(0), 0)
        evs.on_loss(at(1), 0)
        evs.on_trim(at(1), 0)
        assert story(evs) == [
            (0, "GOOD", "ASSUMED_BAD", "LOSS"),
            (1, "GOOD", "GOOD", "FLOOR"),
            (1, "GOOD", "GOOD", "FLOOR"),
        ]
        assert evs.take(3, 0).tolist() == [1, 1, 1]

    def test_the_last_good_one_is_retired_where_marked_ones_can_return(self, make: Make, at: At, story: Story) -> None:
        """Congestion elsewhere is no reason to keep sending into a black hole."""
        evs = make(1, 4)
        evs.on_ecn(at(2, 1, 0), 0)
        evs.on_loss(at(3), 0)
        assert story(evs)[3:] == [(3, "GOOD", "ASSUMED_BAD", "LOSS"), (2, "SKIP", "GOOD", "FLOOR")]
        assert evs.take(2, 0).tolist() == [2, 2]

    def test_a_backup_keeps_the_floor(self, make: Make, at: At) -> None:
        evs = make(1, 4, active=2, ev_min_active=2)
        for _ in range(2):
            evs.on_loss(evs.slots[:1], 0)
        assert (evs.states == EvState.ASSUMED_BAD).sum() == 2
        evs.on_loss(evs.slots[:1], 0)
        assert (evs.states == EvState.ASSUMED_BAD).sum() == 2

    def test_evs_of_a_plane_that_is_down_do_not_count(self, make: Make, at: At) -> None:
        evs = make(2, 2)
        evs.set_port(0, False, EvCause.LOCAL_PORT, 0)
        evs.on_loss(at(2, 3), 0)
        assert evs.states.tolist() == [0, 0, 2, 0]
        assert evs.take(2, 0).tolist() == [3, 3]

    def test_marked_evs_return_when_a_port_takes_the_good_ones_away(self, make: Make, at: At, story: Story) -> None:
        evs = make(2, 2)
        evs.on_ecn(at(2, 3), 0)
        evs.take_events()
        evs.set_port(0, False, EvCause.LOCAL_PORT, 0)
        assert story(evs)[1:] == [(0x100, "SKIP", "GOOD", "FLOOR")]
        assert evs.take(4, 0).tolist() == [2, 2, 2, 2]


class TestDenied:
    def test_is_never_taken_and_its_slot_goes_to_its_plane(self, make: Make, at: At) -> None:
        evs = make(8, 4, active=16)
        denied = evs.slots[:2]
        evs.set_denied(denied, True, 0)
        assert not np.isin(denied, evs.slots).any()
        assert np.bincount(evs.slots // 4).tolist() == [2] * 8
        assert not np.isin(denied, evs.take(200, 0)).any()

    def test_a_slot_does_not_go_to_one_denied_by_the_same_order(self, make: Make, at: At, story: Story) -> None:
        evs = make(1, 4, active=2)
        evs.set_denied(at(0, 1, 2), True, 0)
        assert evs.slots.tolist() == [3, 3]
        assert [row for row in story(evs) if row[1] == row[2] and row[0] != 3] == []

    def test_is_not_protected_by_the_floor(self, make: Make, at: At) -> None:
        evs = make(1, 4, ev_min_active=4)
        evs.set_denied(at(0, 1), True, 0)
        assert evs.states.tolist() == [3, 3, 0, 0]

    def test_is_never_probed(self, make: Make, at: At) -> None:
        evs = make(8, 2)
        evs.on_loss(at(4, 5), 0)
        evs.set_denied(at(4), True, 0)
        assert evs.probes_due(0).tolist() == [5]
        evs.set_denied(at(5), True, 0)
        assert evs.next_due_ns() is None
        assert evs.probes_due(10**12).size == 0

    def test_allowed_again_is_good_whatever_it_was(self, make: Make, at: At, story: Story) -> None:
        evs = make(8, 2)
        evs.on_loss(at(4), 0)
        evs.set_denied(at(4), True, 0)
        evs.set_denied(at(4), False, 0)
        assert story(evs)[-1] == (0x200, "DENIED", "GOOD", "CONTROLLER")
        assert sorted(evs.slots.tolist()) == list(range(16))
        assert evs.next_due_ns() is None

    def test_marked_evs_return_when_all_good_ones_are_denied(self, make: Make, at: At) -> None:
        evs = make(1, 3)
        evs.on_ecn(at(1, 2), 0)
        evs.set_denied(at(0), True, 0)
        assert evs.take(2, 0).tolist() == [1, 1]

    def test_one_is_kept_where_all_would_be_denied_and_that_is_said(self, make: Make, at: At, story: Story) -> None:
        evs = make(2, 2)
        evs.set_denied(at(0, 1, 2, 3), True, 0)
        (kept,) = np.flatnonzero(evs.states == EvState.GOOD).tolist()
        assert story(evs)[0] == ((kept // 2 << 8) + kept % 2, "GOOD", "GOOD", "FLOOR")
        assert evs.take(3, 0).tolist() == [kept] * 3

    def test_the_one_kept_is_one_that_can_be_used(self, make: Make, at: At) -> None:
        evs = make(2, 3)
        evs.on_loss(at(3), 0)
        evs.on_ecn(at(4), 0)
        evs.set_port(0, False, EvCause.LOCAL_PORT, 0)
        evs.set_denied(at(*range(6)), True, 0)
        assert evs.take(2, 0).tolist() == [5, 5]

    def test_the_one_kept_is_denied_as_soon_as_another_is_allowed(self, make: Make, at: At) -> None:
        evs = make(1, 2)
        evs.set_denied(at(0), True, 0)
        evs.set_denied(at(1), True, 0)
        assert evs.states.tolist() == [3, 0]
        evs.set_denied(at(0), False, 0)
        assert evs.states.tolist() == [0, 3]

    def test_denied_while_its_port_is_down_stays_so(self, make: Make, at: At) -> None:
        evs = make(2, 2)
        evs.set_port(1, False, EvCause.LOCAL_PORT, 0)
        evs.set_denied(at(2), True, 0)
        evs.set_port(1, True, EvCause.LOCAL_PORT, 0)
        assert evs.states.tolist() == [0, 0, 3, 0]
        assert sorted(evs.slots.tolist()) == [0, 1, 3, 3]

    def test_allowed_while_its_port_is_down_waits_for_the_port(self, make: Make, at: At) -> None:
        evs = make(2, 1)
        evs.set_denied(at(1), True, 0)
        evs.set_port(1, False, EvCause.LOCAL_PORT, 0)
        evs.set_denied(at(1), False, 0)
        assert evs.take(2, 0).tolist() == [0, 0]
        evs.set_port(1, True, EvCause.LOCAL_PORT, 0)
        assert sorted(evs.take(2, 0).tolist()) == [0, 1]
