"""Sets of faults that explain a window, weighed against each other.

Greedy search from several starts: each of the likeliest single faults is completed by what explains most of the rest.
Two faults at once are found that way, and a fault competes only with those that explain the same losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from testbed.localise.elements import Counts, Elements
from testbed.localise.likelihood import Evidence, scan, with_fault

#: Starts that are followed, and faults in one model beside those known before.
STARTS, AT_ONCE = 6, 4


@dataclass(frozen=True)
class Model:
    """Columns at fault, with rates; ``score``: log-likelihood over none of them, less what each has to gain."""

    rates: dict[int, float]
    score: float


def explore(elements: Elements, evidence: Evidence, base: Counts, threshold: float) -> list[tuple[Model, float]]:
    """Models and their weights, which add up to 1, the heaviest first; empty where nothing reaches the threshold.

    Args:
        base: per route log-survival under what is known and not in question.
        threshold: nats that a fault has to gain to be in a model.
    """
    first = scan(elements, evidence, base)
    starts = np.argsort(first.gain)[::-1][:STARTS]
    models: dict[frozenset[int], Model] = {}
    for start in starts.tolist():
        if first.gain[start] < threshold:
            break
        model = _completed(
            elements, evidence, base, threshold, start, float(first.rate[start]), float(first.gain[start])
        )
        key = frozenset(model.rates)
        if key not in models or models[key].score < model.score:
            models[key] = model
    found = sorted(models.values(), key=lambda model: -model.score)
    if not found:
        return []
    weights = np.exp([max(model.score - found[0].score, -700.0) for model in found])
    weights /= weights.sum()
    return list(zip(found, weights.tolist(), strict=True))


def _completed(
    elements: Elements, evidence: Evidence, base: Counts, threshold: float, start: int, rate: float, gain: float
) -> Model:
    """A start and what explains most of the rest, one after another, each weighed again in the light of the others."""
    rates = {start: rate}
    score = gain - threshold
    while len(rates) < AT_ONCE:
        rest = scan(elements, evidence, survival(elements, base, rates))
        best = int(rest.gain.argmax())
        if rest.gain[best] < threshold or best in rates:
            break
        rates[best] = float(rest.rate[best])
        score += float(rest.gain[best]) - threshold
    if len(rates) == 1:
        return Model(rates, score)
    return _settled(elements, evidence, base, threshold, rates)


def _settled(elements: Elements, evidence: Evidence, base: Counts, threshold: float, rates: dict[int, float]) -> Model:
    """Give each fault the rate, and the place, that explains best what the others leave."""
    for _ in range(2):
        for column in list(rates):
            others = {other: rate for other, rate in rates.items() if other != column}
            again = scan(elements, evidence, survival(elements, base, others))
            best = int(again.gain.argmax())
            rates = others
            if again.gain[best] >= threshold:
                rates[best] = float(again.rate[best])
    # The score is that of the chain of its faults, in the order of what they gain.
    score, alive = 0.0, base
    for column in sorted(rates):
        score += float(scan(elements, evidence, alive).gain[column]) - threshold
        alive = with_fault(elements, alive, column, rates[column])
    return Model(rates, score)


def shares(elements: Elements, evidence: Evidence, base: Counts, model: Model) -> dict[int, float]:
    """How surely each fault of a model is where it is: its weight, with its twins', among all in its place."""
    found = {}
    for column in model.rates:
        others = {other: rate for other, rate in model.rates.items() if other != column}
        gain = scan(elements, evidence, survival(elements, base, others)).gain
        weights = np.exp(gain - gain.max())
        found[column] = float(weights[elements.twins[column]].sum() / weights.sum())
    return found


def survival(elements: Elements, base: Counts, rates: dict[int, float]) -> Counts:
    """Per route the log-survival with all of these at fault."""
    for column, rate in rates.items():
        base = with_fault(elements, base, column, rate)
    return base
