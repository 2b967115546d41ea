"""Which probes are sent to tell candidates apart."""

from __future__ import annotations

from collections import Counter

import pytest

from testbed.addressing import AddressPlan
from testbed.lab import Lab
from testbed.localise.elements import Element, Elements, Kind
from testbed.localise.focus import ASKING, ASKING_PARTIAL, TURNS, WATCHING, Candidate, goes_to_focus, questions, watches
from testbed.traffic.prober.loops import loops

LAB = Lab.load("laptop")
ROUTES = [loop.route() for loop in loops(AddressPlan(LAB), LAB.topology.hosts)]
ELEMENTS = Elements(ROUTES)
LINK = "p2-t0-0~p2-t1-1"
UP, DOWN = (Element(Kind.DIRECTION, LINK, *ends) for ends in (("p2-t0-0", "p2-t1-1"), ("p2-t1-1", "p2-t0-0")))


def column(element: Element) -> int:
    return next(number for number, group in enumerate(ELEMENTS.groups) if element in group)


def passed(route: int) -> frozenset[Element]:
    hops = {(hop.link, hop.tail, hop.head) for hop in ROUTES[route].hops}
    return frozenset(each for each in (UP, DOWN) if (each.subject, each.tail, each.head) in hops)


@pytest.mark.parametrize("turns", [WATCHING, ASKING, ASKING_PARTIAL])
def test_so_many_turns_go_to_a_focus(turns: int) -> None:
    taken = [goes_to_focus(turn, turns) for turn in range(80)]
    assert sum(taken) == 10 * turns
    assert all(sum(taken[first : first + TURNS]) == turns for first in range(72))


@pytest.mark.parametrize(("rate", "turns"), [(0.01, ASKING_PARTIAL), (0.9999, ASKING)])
def test_two_directions_are_told_apart_by_probes_that_cross_one_of_them(rate: float, turns: int) -> None:
    asked = questions(ELEMENTS, [Candidate(column(each), 6.0, rate) for each in (UP, DOWN)], 2e-5)
    assert asked.turns == turns
    crossed = Counter(map(passed, asked.routes))
    assert crossed[frozenset([UP])] > 0.3 * len(asked.routes)
    assert crossed[frozenset([DOWN])] > 0.3 * len(asked.routes)
    assert crossed[frozenset([UP, DOWN])] + crossed[frozenset()] < 0.1 * len(asked.routes)


def test_what_has_gained_little_is_asked_about_little() -> None:
    asked = questions(ELEMENTS, [Candidate(column(UP), 12.0, 0.01), Candidate(column(DOWN), 5.0, 0.01)], 2e-5)
    crossed = Counter(map(passed, asked.routes))
    assert crossed[frozenset([UP])] + crossed[frozenset([UP, DOWN])] > 0.9 * len(asked.routes)


def test_one_that_is_left_is_confirmed() -> None:
    asked = questions(ELEMENTS, [Candidate(column(UP), 12.0, 0.01)], 2e-5)
    assert set(map(passed, asked.routes)) <= {frozenset([UP]), frozenset([UP, DOWN])}


def test_what_is_accused_is_watched_by_probes_that_cross_it() -> None:
    watched = watches(ELEMENTS, [column(UP)])
    assert watched.turns == WATCHING
    assert all(UP in passed(route) for route in watched.routes)
    assert watched.routes
