"""What can be at fault: each direction of a link, each link, each switch, each host with all its ports.

A black hole of one uSID needs no element of its own. A switch reaches each uSID over one link, so a route that is
missing or wrong takes away what one direction of that link carries; a switch's own uSID what the switch carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from testbed.localise.routes import Route


class Kind(StrEnum):
    """What an element is; of those that cannot be told apart the first in this order stands for all."""

    LINK = "link"
    SWITCH = "switch"
    DIRECTION = "direction"
    HOST = "host"
    #: Every link alike: no place, but what a fault has to be told from.
    EVERYWHERE = "everywhere"


_ORDER = list(Kind)


@dataclass(frozen=True, slots=True)
class Element:
    """Something that can be at fault. ``subject``: link or node; ``tail``, ``head``: of a direction, else empty."""

    kind: Kind
    subject: str
    tail: str = ""
    head: str = ""

    def __str__(self) -> str:
        return f"{self.tail} → {self.head}" if self.kind is Kind.DIRECTION else self.subject


Counts = npt.NDArray[np.float64]
Indexes = npt.NDArray[np.int64]


class Elements:
    """The elements that these routes can tell anything about, and how often each route passes each of them.

    Attributes:
        routes: how many there are.
        groups: the elements of each column; more than one where no probe can tell them apart: whenever one route passes
            one of them it passes the others, in the same proportion.
        column, route, times: one entry each for every column that a route passes, sorted by column.
        everywhere: number of the last column, which stands for every link alike; no route passes it where this cannot
            be told from an element.
        twins: for each column those that the very same routes pass, itself included, however often: a black hole of one
            looks like one of another.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = len(routes)
        passed: dict[Element, dict[int, int]] = {}
        for number, route in enumerate(routes):
            for element in _passed(route):
                counts = passed.setdefault(element, {})
                counts[number] = counts.get(number, 0) + 1
        same: dict[tuple[tuple[int, float], ...], list[Element]] = {}
        for element, counts in passed.items():
            same.setdefault(_signature(counts), []).append(element)
        found = [sorted(group, key=lambda element: _ORDER.index(element.kind)) for group in same.values()]
        everywhere = Element(Kind.EVERYWHERE, "every link")
        self.groups: list[tuple[Element, ...]] = [*map(tuple, found), (everywhere,)]
        self.everywhere = len(found)
        entries = [
            (column, route, times) for column, group in enumerate(found) for route, times in passed[group[0]].items()
        ]
        hops = {number: len(route.hops) for number, route in enumerate(routes)}
        if _signature(hops) not in same:
            entries += [(self.everywhere, number, times) for number, times in hops.items()]
        table = np.array(entries, np.int64).reshape(-1, 3)
        self.column: Indexes = np.ascontiguousarray(table[:, 0])
        self.route: Indexes = np.ascontiguousarray(table[:, 1])
        self.times: Counts = table[:, 2].astype(np.float64)
        self.starts: Indexes = np.searchsorted(self.column, np.arange(len(self.groups) + 1)).astype(np.int64)
        alike: dict[bytes, list[int]] = {}
        for column in range(len(self.groups)):
            alike.setdefault(self.of(column)[0].tobytes(), []).append(column)
        self.twins: dict[int, list[int]] = {column: found for found in alike.values() for column in found}

    def __len__(self) -> int:
        return len(self.groups)

    def of(self, column: int) -> tuple[Indexes, Counts]:
        """The routes that pass a column, and how often."""
        part = slice(int(self.starts[column]), int(self.starts[column + 1]))
        return self.route[part], self.times[part]

    def totals(self, per_route: Counts) -> Counts:
        """For each column the sum over the routes that pass it, as often as they pass it. Shape (columns,)."""
        totals: Counts = np.bincount(self.column, self.times * per_route[self.route], len(self.groups)).astype(
            np.float64
        )
        return totals


def _signature(counts: dict[int, int]) -> tuple[tuple[int, float], ...]:
    """The same for elements that no probe can tell apart."""
    least = min(counts.values())
    return tuple((route, times / least) for route, times in counts.items())


def _passed(route: Route) -> list[Element]:
    """Every element that a route passes, as often as it passes it."""
    found = []
    for hop in route.hops:
        found += [Element(Kind.LINK, hop.link), Element(Kind.DIRECTION, hop.link, hop.tail, hop.head)]
    found += [Element(Kind.SWITCH, hop.head) for hop in route.hops[:-1]]
    found += [Element(Kind.HOST, route.hops[0].tail), Element(Kind.HOST, route.hops[-1].head)]
    return found
