"""Which probes tell candidates apart soonest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from testbed.localise.elements import Counts, Elements

#: Routes for each candidate.
_EACH = 6


#: One turn in so many goes to the focus: while candidates are to be told apart, and while one only waits for a healing.
ASKING, WATCHING = 2, 8


@dataclass(frozen=True)
class Focus:
    """Routes to probe more often, in this order, and every how many turns of the schedule; no routes: none."""

    routes: tuple[int, ...] = ()
    every: int = ASKING


def focus(elements: Elements, candidates: Sequence[int]) -> list[int]:
    """Routes to probe more often, in the order to send them: for each candidate those that pass few of the others.

    Candidates come first with their best route, then with their second best, and so on.
    """
    if not candidates:
        return []
    crowd: Counts = np.zeros(elements.routes)
    for column in candidates:
        crowd[elements.of(column)[0]] += 1
    ranks: list[list[int]] = []
    for number, column in enumerate(candidates):
        routes = elements.of(column)[0]
        # Of equals each candidate begins elsewhere, so that they do not all choose the same.
        order = np.roll(routes, -(number * _EACH) % len(routes))
        ranks.append(order[np.argsort(crowd[order], kind="stable")][:_EACH].tolist())
    found = [rank[place] for place in range(_EACH) for rank in ranks if place < len(rank)]
    return list(dict.fromkeys(found))
