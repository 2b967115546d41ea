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
        self.pairs = PAIRS
        self.told: list[tuple[str, list[int], bool]] = []
        self.over = False

    @property
    def path_of(self) -> dict[tuple[int, int], Path]:
        return {(n, ev): PLAN.path(*pair, ev) for n, pair in enumerate(PAIRS) for ev in PLAN.evs(*pair)}

    def deny(self, host: str, evs: Sequence[int], *, denied: bool = True) -> None:
        if self.over:
            raise UsageError("these transfers are not running")
        self.told.append((host, list(evs), denied))


def suspect(element: Element, fault: FaultClass = FaultClass.BLACK_HOLE) -> Suspect:
    return Suspect(element, fault, 1.0, 0.9, 1.0, 0.0, 1.0, 0, 0, 10, 10)


def say(feed: DenylistFeed, *suspects: Suspect) -> None:
    feed(suspects, Change(What.ACCUSED, suspect(Element(Kind.SWITCH, "p0-t1-0")), 0))


def evs(pair: tuple[str, str], node: str) -> set[int]:
    return {ev for ev in PLAN.evs(*pair) if node in PLAN.path(*pair, ev).nodes}


def test_evs_over_a_switch_are_denied_on_every_sender_and_allowed_when_it_is_cleared() -> None:
    flows = Transfers()
    feed = DenylistFeed(flows)  # type: ignore[arg-type]
    say(feed, suspect(Element(Kind.SWITCH, "p3-t1-1")))
    expected = evs(("h0", "h2"), "p3-t1-1")
    assert expected == evs(("h3", "h0"), "p3-t1-1")
    assert feed.denied == {"h0": expected, "h3": expected}
    say(feed)
    assert feed.denied == {}
    assert flows.told == [(host, sorted(expected), denied) for denied in (True, False) for host in ("h0", "h3")]


def test_only_the_direction_that_is_hit_counts() -> None:
    feed = DenylistFeed(Transfers())  # type: ignore[arg-type]
    say(feed, suspect(Element(Kind.DIRECTION, "p3-t0-1~p3-t1-1", "p3-t0-1", "p3-t1-1")))
    assert feed.denied == {"h3": evs(("h3", "h0"), "p3-t1-1")}


def test_what_one_of_two_suspects_still_crosses_stays_denied() -> None:
    flows = Transfers()
    feed = DenylistFeed(flows)  # type: ignore[arg-type]
    t1, link = suspect(Element(Kind.SWITCH, "p3-t1-1")), suspect(Element(Kind.LINK, "h0:p3~p3-t0-0"))
    say(feed, t1, link)
    say(feed, link)
    assert feed.denied["h0"] >= evs(("h0", "h2"), "p3-t1-1")
    assert "h3" in feed.denied


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
