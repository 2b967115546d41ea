"""Which EVs go on which NIC's denylist, and come off it again."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from testbed.addressing import AddressPlan, Path
from testbed.errors import UsageError
from testbed.lab import Lab
from testbed.localise.elements import Element, Kind
from testbed.localise.suspects import Change, FaultClass, Suspect, What
from testbed.traffic.prober.feed import DenylistFeed

PLAN = AddressPlan(Lab.load("laptop"))
PAIRS = [("h0", "h2"), ("h0", "h1"), ("h3", "h0")]


class Transfers:
    """What a feed needs of running transfers, and what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[tuple[str, str], list[int], bool]] = []
        self.over = False

    @property
    def ways(self) -> dict[tuple[str, str], dict[int, Path]]:
        every = [way for src, dst in PAIRS for way in ((src, dst), (dst, src))]
        return {way: {ev: PLAN.path(*way, ev) for ev in PLAN.evs(*way)} for way in every}

    def deny(self, host: str, evs: Sequence[int], *, peer: str, denied: bool = True) -> None:
        if self.over:
            raise UsageError("these transfers are not running")
        self.told.append(((host, peer), list(evs), denied))


def suspect(element: Element, fault: FaultClass = FaultClass.BLACK_HOLE) -> Suspect:
    return Suspect(element, fault, 1.0, 0.9, 1.0, 0.0, 1.0, 0, 0, 10, 10)


def say(feed: DenylistFeed, *suspects: Suspect) -> None:
    feed(suspects, Change(What.ACCUSED, suspect(Element(Kind.SWITCH, "p0-t1-0")), 0))


def evs(pair: tuple[str, str], node: str) -> set[int]:
    return {ev for ev in PLAN.evs(*pair) if node in PLAN.path(*pair, ev).nodes}


#: Of PAIRS both ways, but for h0 and h1, which hang on one T0.
OVER_T1 = [("h0", "h2"), ("h2", "h0"), ("h3", "h0"), ("h0", "h3")]


def test_evs_over_a_switch_are_denied_there_and_back_and_allowed_when_it_is_cleared() -> None:
    flows = Transfers()
    feed = DenylistFeed(flows)  # type: ignore[arg-type]
    say(feed, suspect(Element(Kind.SWITCH, "p3-t1-1")))
    assert feed.denied == {way: evs(way, "p3-t1-1") for way in OVER_T1}
    say(feed)
    assert feed.denied == {}
    assert flows.told == [(way, sorted(evs(way, "p3-t1-1")), denied) for denied in (True, False) for way in OVER_T1]


def test_only_the_direction_that_is_hit_counts() -> None:
    feed = DenylistFeed(Transfers())  # type: ignore[arg-type]
    say(feed, suspect(Element(Kind.DIRECTION, "p3-t0-1~p3-t1-1", "p3-t0-1", "p3-t1-1")))
    assert feed.denied == {way: evs(way, "p3-t1-1") for way in (("h2", "h0"), ("h3", "h0"))}


@pytest.mark.parametrize(("ends", "way"), [(("p3-t0-1", "h2"), ("h0", "h2")), (("h2", "p3-t0-1"), ("h2", "h0"))])
def test_an_ev_is_denied_towards_that_peer_alone(ends: tuple[str, str], way: tuple[str, str]) -> None:
    """h0 has the same EVs towards h3."""
    feed = DenylistFeed(Transfers())  # type: ignore[arg-type]
    say(feed, suspect(Element(Kind.DIRECTION, "h2:p3~p3-t0-1", *ends)))
    assert feed.denied == {way: evs(way, "p3-t0-1")}
    assert evs(("h0", "h3"), "p3-t0-1") == evs(("h0", "h2"), "p3-t0-1")


def test_what_one_of_two_suspects_still_crosses_stays_denied() -> None:
    flows = Transfers()
    feed = DenylistFeed(flows)  # type: ignore[arg-type]
    t1, link = suspect(Element(Kind.SWITCH, "p3-t1-1")), suspect(Element(Kind.LINK, "h2:p3~p3-t0-1"))
    say(feed, t1, link)
    say(feed, link)
    assert feed.denied == {way: evs(way, "p3-t0-1") for way in (("h0", "h2"), ("h2", "h0"))}


@pytest.mark.parametrize(("fault", "denied"), [(FaultClass.PARTIAL, True), (FaultClass.DELAY, False)])
def test_a_delay_costs_no_ev_its_place_unless_asked_for(fault: FaultClass, denied: bool) -> None:
    accused = suspect(Element(Kind.SWITCH, "p3-t1-1"), fault)
    feed = DenylistFeed(Transfers())  # type: ignore[arg-type]
    say(feed, accused)
    assert bool(feed.denied) is denied
    feed = DenylistFeed(Transfers(), faults=FaultClass)  # type: ignore[arg-type]
    say(feed, accused)
    assert feed.denied


def test_transfers_that_have_ended_are_told_nothing() -> None:
    flows = Transfers()
    flows.over = True
    say(DenylistFeed(flows), suspect(Element(Kind.SWITCH, "p3-t1-1")))  # type: ignore[arg-type]
    assert flows.told == []
