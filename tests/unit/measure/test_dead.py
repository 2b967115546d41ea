"""Loss against dead windows: equal within one packet per EV and edge, and none on survivors."""

from __future__ import annotations

import pytest

from testbed.errors import UsageError
from testbed.measure.dead import NEVER, DeadWindow, DeadWindowLoss, EvLoss, lost_in_windows
from testbed.measure.definitions import Report
from testbed.measure.match import match
from testbed.measure.streams import Level, streams
from tests.unit.measure.traces import MS, T0, samples, steady


def dead(ev: int, start_lo: float, start_hi: float, end_lo: float, end_hi: float) -> DeadWindow:
    """A window of EV ``ev`` with its stamps in ms."""
    return DeadWindow(0, ev, *(T0 + round(t * MS) for t in (start_lo, start_hi, end_lo, end_hi)))


def compare(lost: set[int], *windows: DeadWindow, count: int = 100, evs: int = 1) -> DeadWindowLoss:
    """One packet per ms, number n at n ms, over ``evs`` EVs, each its own plane; ``lost`` are lost."""
    return lost_in_windows(
        streams(match(samples(*steady(count, MS, lost=lost, evs=evs, planes=evs))), Level.EV), windows
    )


def only(found: DeadWindowLoss) -> EvLoss:
    assert len(found.evs) == 1
    return found.evs[0]


def test_exactly_the_packets_sent_while_dead_are_lost() -> None:
    found = compare(set(range(20, 40)), dead(0, 19.5, 19.5, 39.5, 39.5))
    ev = only(found)
    assert (ev.sent, ev.sent_within, ev.lost_within, ev.lost_outside, ev.contradictions) == (100, 20, 20, 0, 0)
    assert found.explained


def test_packets_on_an_uncertain_edge_may_share_either_fate() -> None:
    # It died between 18.5 and 22.5 ms: 19 … 22 may be lost or not. Here 21 and 22 are.
    ev = only(compare(set(range(21, 40)), dead(0, 18.5, 22.5, 39.5, 41.5)))
    assert (ev.sent_within, ev.lost_within) == (17, 17)
    assert (ev.sent_on_edges, ev.lost_on_edges) == (6, 2)
    assert ev.contradictions == 0


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        (set(range(19, 40)), "19 was under way when the EV died"),
        (set(range(21, 40)), "the EV died just after 20 passed"),
        (set(range(20, 41)), "40 arrived at the dead hop just before it came back"),
        (set(range(20, 39)), "39 arrived at the hop just after it came back"),
        (set(range(19, 41)), "one packet at each edge"),
    ],
)
def test_one_packet_per_edge_is_excused(lost: set[int], why: str) -> None:
    found = compare(lost, dead(0, 19.5, 19.5, 39.5, 39.5))
    assert found.explained, why
    assert only(found).excused > 0


@pytest.mark.parametrize(
    ("lost", "contradictions", "why"),
    [
        (set(range(18, 40)), 1, "two lost before the edge: one is excused"),
        (set(range(22, 40)), 1, "two delivered after the edge"),
        (set(range(20, 40)) - {30}, 1, "one delivered in the middle"),
        (set(range(20, 40)) | {70}, 1, "one lost far from any edge"),
        ({19, *range(21, 40)}, 1, "both neighbours of one edge: it lies on one side of each"),
        (set(), 18, "nothing lost at all: 20 delivered, one excused per edge"),
    ],
)
def test_more_than_that_contradicts_the_window(lost: set[int], contradictions: int, why: str) -> None:
    found = compare(lost, dead(0, 19.5, 19.5, 39.5, 39.5))
    assert only(found).contradictions == contradictions, why
    assert not found.explained
    assert found.contradicting() == found.evs


def test_survivors_lose_nothing() -> None:
    # EV 1 of 4 is dead from 20 to 60 ms and loses 21, 25, … 57.
    lost = set(range(21, 60, 4))
    found = compare(lost, dead(1, 20, 20, 60, 60), evs=4)
    assert [e.lost_within for e in found.evs] == [0, 10, 0, 0]
    assert found.explained
    assert found.lost_on_survivors() == 0
    also = compare(lost | {30}, dead(1, 20, 20, 60, 60), evs=4)
    assert not also.explained
    assert also.lost_on_survivors() == also.lost_on_survivors(plane=2) == 1
    assert also.lost_on_survivors(plane=3) == 0
    # What the dead EV lost while it was alive is not the survivors'.
    assert compare(lost | {81}, dead(1, 20, 20, 60, 60), evs=4).lost_on_survivors() == 0
    assert [e.name for e in also.contradicting()] == ["flow h0>h1 ev 0x0002"]


def test_several_windows_and_one_that_never_ends() -> None:
    lost = {*range(10, 20), *range(50, 100)}
    last = DeadWindow(0, 0, T0 + 50 * MS, T0 + 50 * MS, NEVER, NEVER)
    found = compare(lost, last, dead(0, 9.5, 9.5, 19.5, 19.5))
    assert (only(found).windows, only(found).lost_within, found.explained) == (2, 60, True)


@pytest.mark.parametrize(
    ("windows", "count", "within", "on_edges", "why"),
    [
        ([(10, 11, 30, 31), (20, 21, 40, 41)], 1, 30, 2, "the second begins before the first ends"),
        ([(10, 11, 40, 41), (20, 21, 30, 31)], 1, 30, 2, "the second lies within the first"),
        ([(10, 11, 30, 31), (10, 10, 20, 21)], 1, 21, 1, "both begin at once, one of them surely sooner"),
        ([(10, 11, 30, 35), (33, 37, 40, 41)], 2, 20 + 4, 2 + 6, "perhaps alive from 31 to 36"),
    ],
)
def test_windows_that_overlap_are_one(
    windows: list[tuple[int, int, int, int]], count: int, within: int, on_edges: int, why: str
) -> None:
    ev = only(compare(set(), *(dead(0, *window) for window in windows)))
    assert (ev.windows, ev.sent_within, ev.sent_on_edges) == (count, within, on_edges), why


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([dead(0, 20, 19, 30, 30)], "out of order"),
        ([dead(5, 20, 20, 30, 30)], "no packet was sent on"),
    ],
)
def test_windows_that_make_no_sense_are_refused(windows: list[DeadWindow], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare(set(), *windows)


def test_streams_per_flow_are_refused() -> None:
    with pytest.raises(UsageError, match="per EV"):
        lost_in_windows(streams(match(samples(*steady(3, MS))), Level.FLOW), [])


@pytest.mark.parametrize(
    ("lost", "outside"), [(set(range(20, 40)), 0), (set(range(18, 40)), 1), ({5, *range(20, 40)}, 1)]
)
def test_losses_outside_dead_windows_are_a_figure(lost: set[int], outside: int) -> None:
    figure = compare(lost, dead(0, 19.5, 19.5, 39.5, 39.5)).figure(Report())
    assert (figure.name, figure.value, figure.samples, figure.unit) == ("lost_outside_faults", outside, 100, "packets")


def test_drops_in_the_receiver_make_losses_outside_faults_unknown() -> None:
    assert compare({5}, dead(0, 19.5, 19.5, 39.5, 39.5)).figure(Report(receiver_drops=1)).value is None
