"""How much better outcomes are explained when one more element is at fault.

A probe crosses an element ``k`` times and survives each crossing with probability ``1 - q``, independently; without any
fault it is lost with a small probability of its own. Counts per route are then binomial. What ``q`` is nobody knows
beforehand, so the likelihood is averaged over a grid of it: under the model without that element such an average
ratio exceeds ``1/a`` with a probability of at most ``a`` (Markov's inequality, its mean being 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from testbed.localise.elements import Counts, Elements

#: Probabilities of loss at a crossing that are weighed; the last stands for a black hole.
GRID: Counts = np.array(
    [0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.13, 0.2, 0.32, 0.5, 0.7, 0.85, 0.95, 0.9999]
)
_LOG_SURVIVAL: Counts = np.log1p(-GRID)
_GRID_SIZE = np.log(len(GRID))


@dataclass(frozen=True)
class Evidence:
    """Counts per route of one window: probes whose fate is known, and those of them that were hit (lost, or slow)."""

    probes: Counts
    hit: Counts


@dataclass(frozen=True)
class Scan:
    """For each column: ``gain``, log of the averaged likelihood ratio (nats), and the likeliest ``rate``."""

    gain: Counts
    rate: Counts


def scan(elements: Elements, evidence: Evidence, log_survival: Counts) -> Scan:
    """Weigh each element as one more fault.

    Args:
        elements: what can be at fault.
        evidence: counts per route.
        log_survival: per route, log of the probability that a probe survives what is known already.
    """
    logs = _surface(elements, evidence, log_survival)
    top = logs.max(axis=1)
    gain = top + np.log(np.exp(logs - top[:, None]).sum(axis=1)) - _GRID_SIZE
    return Scan(gain, GRID[logs.argmax(axis=1)])


def _surface(elements: Elements, evidence: Evidence, log_survival: Counts) -> Counts:
    """Log-likelihood ratios, shape (columns, grid)."""
    missed = evidence.probes - evidence.hit
    survived = elements.totals(missed)
    logs: Counts = survived[:, None] * _LOG_SURVIVAL
    entries = np.flatnonzero(evidence.hit[elements.route] > 0)
    route, times = elements.route[entries], elements.times[entries]
    before = -np.expm1(log_survival[route])
    after = -np.expm1(log_survival[route, None] + times[:, None] * _LOG_SURVIVAL)
    terms = evidence.hit[route, None] * (np.log(after) - np.log(before)[:, None])
    if len(entries):
        # Entries are sorted by column.
        column = elements.column[entries]
        firsts = np.flatnonzero(np.diff(column, prepend=-1))
        logs[column[firsts]] += np.add.reduceat(terms, firsts, axis=0)
    return logs


def with_fault(elements: Elements, log_survival: Counts, column: int, rate: float) -> Counts:
    """Per route the log-survival with one more element at fault."""
    changed = log_survival.copy()
    if rate > 0:
        routes, times = elements.of(column)
        changed[routes] += times * np.log1p(-min(rate, GRID[-1]))
    return changed


def log_ratio(elements: Elements, evidence: Evidence, log_survival: Counts, column: int, rate: float) -> float:
    """Log-likelihood ratio of one more element at fault at a given rate."""
    routes, times = elements.of(column)
    hit, missed = evidence.hit[routes], evidence.probes[routes] - evidence.hit[routes]
    before = -np.expm1(log_survival[routes])
    after = -np.expm1(log_survival[routes] + times * np.log1p(-rate))
    return float((missed * times).sum() * np.log1p(-rate) + (hit * (np.log(after) - np.log(before))).sum())


def rate_interval(
    elements: Elements, evidence: Evidence, log_survival: Counts, column: int, level: float = 0.95
) -> tuple[float, float, float]:
    """Likeliest rate of an element and the credible interval around it, by a flat prior over [0, 1].

    ``log_survival`` is without that element.
    """
    routes, times = elements.of(column)
    # Dense where small rates are told apart, and near 1.
    rates = np.unique(np.concatenate([np.linspace(0, 1, 1001)[1:-1], np.geomspace(1e-5, 0.5, 1200), [1 - 1e-6]]))
    hit = evidence.hit[routes]
    survived = float((times * (evidence.probes[routes] - hit)).sum())
    logs = survived * np.log1p(-rates)
    for number in np.flatnonzero(hit):
        alive = log_survival[routes[number]] + times[number] * np.log1p(-rates)
        logs += hit[number] * np.log(-np.expm1(alive))
    weights = np.exp(logs - logs.max()) * np.gradient(rates)
    share = np.cumsum(weights) / weights.sum()
    tail = (1 - level) / 2
    lo, hi = (float(rates[min(int(share.searchsorted(at)), len(rates) - 1)]) for at in (tail, 1 - tail))
    return float(rates[int(logs.argmax())]), lo, hi
