"""Which probes tell candidates apart soonest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from testbed.localise.elements import Counts, Elements, Indexes

#: Turns out of :data:`TURNS` that go to the focus: while candidates are to be told apart, of which each loses all that
#: crosses it or only some, and while one only waits for a healing. What loses all shows at once wherever it is, so that
#: more would not hasten it, and a second one beside it is found by the turns that go on as planned.
TURNS = 8
ASKING, ASKING_PARTIAL, WATCHING = 4, 7, 1
#: A likelier rate is no partial loss (or delay of some probes).
_PARTIAL = 0.5
#: How many routes an order of focus lists, some of them several times.
_LISTED = 256
#: Routes for each element that waits for its healing.
_EACH = 6
#: That none of the candidates is at fault, when their weights add up to 1: enough that one that is left is confirmed.
_NONE = 0.01
#: Routes are taken in proportion to what a probe of them tells, to this power. Neither the best alone, which were
#: probed over and over before the first answer is in, nor all: found by simulation, and flat around it.
_GREED = 3.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An element that may be at fault: its column, what it gains (nats), and the likeliest rate at which it hits."""

    column: int
    gain: float
    rate: float


@dataclass(frozen=True)
class Focus:
    """Routes to probe more often, in this order, and how many out of :data:`TURNS` turns; no routes: none."""

    routes: tuple[int, ...] = ()
    turns: int = ASKING


def goes_to_focus(turn: int, turns: int) -> bool:
    """Whether the turn of this number does, of ``turns`` out of :data:`TURNS`, which are spread evenly."""
    return turn * turns % TURNS < turns


def questions(elements: Elements, candidates: Sequence[Candidate], background: float) -> Focus:
    """The probes that tell most about which candidate it is, if any.

    What a probe tells is the mutual information (nats) between its fate and the candidate that is at fault: much where
    it crosses about half of the weight, little where it crosses all candidates or none. Candidates weigh as they gain.

    Args:
        elements: what can be at fault.
        candidates: one at least.
        background: probability that a probe without a fault is hit.
    """
    gains = np.array([each.gain for each in candidates])
    weights = np.exp(gains - gains.max())
    weights *= (1 - _NONE) / weights.sum()
    routes = np.unique(np.concatenate([elements.of(each.column)[0] for each in candidates]))
    hit = np.empty((len(candidates), len(routes)))
    for row, each in zip(hit, candidates, strict=True):
        passed, times = elements.of(each.column)
        row.fill(background)
        row[routes.searchsorted(passed)] = 1 - (1 - background) * (1 - each.rate) ** times
    mixed = _entropy(weights @ hit + _NONE * background)
    told = mixed - weights @ _entropy(hit) - _NONE * _entropy(np.array(background))
    partial = candidates[int(gains.argmax())].rate < _PARTIAL
    return Focus(_apportioned(routes, told), ASKING_PARTIAL if partial else ASKING)


def _entropy(p: Counts) -> Counts:
    """Of a probe that is hit with probability ``p``, in nats."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-(p * np.log(p) + (1 - p) * np.log1p(-p)))


def _apportioned(routes: Indexes, told: Counts) -> tuple[int, ...]:
    """A list of routes in which each stands as often as it is worth, mixed."""
    shares = np.cumsum(np.maximum(told, 1e-15) ** _GREED)
    chosen = routes[shares.searchsorted((np.arange(_LISTED) + 0.5) / _LISTED * shares[-1])]
    # Multiples of the golden section: neighbours in the order are far apart in the list.
    return tuple(chosen[np.argsort(np.arange(_LISTED) * 0.6180339887 % 1.0)].tolist())


def watches(elements: Elements, held: Sequence[int]) -> Focus:
    """Probes of what is accused, until it is cleared: for each those that pass few of the others.

    Each comes first with its best route, then each with its second best, and so on.
    """
    crowd: Counts = np.zeros(elements.routes)
    for column in held:
        crowd[elements.of(column)[0]] += 1
    ranks: list[list[int]] = []
    for number, column in enumerate(held):
        routes = elements.of(column)[0]
        # Of equals each begins elsewhere, so that they do not all choose the same.
        order = np.roll(routes, -(number * _EACH) % len(routes))
        ranks.append(order[np.argsort(crowd[order], kind="stable")][:_EACH].tolist())
    found = [rank[place] for place in range(_EACH) for rank in ranks if place < len(rank)]
    return Focus(tuple(dict.fromkeys(found)), WATCHING)
