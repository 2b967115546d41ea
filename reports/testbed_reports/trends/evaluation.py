"""How good the change points are, beside a fixed percentage: ``python -m testbed_reports.trends.evaluation``.

Series with known steps and steady ones are drawn from a seed; each rule says where it sees a change.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from testbed_reports.trends.changepoints import _SHARES, best_scores, find_all

F64 = npt.NDArray[np.float64]
Rule = Callable[[Sequence[F64]], list[list[int]]]

#: A change counts as found where it is told at most so many runs from where it was.
TOLERANCE: Final = 2
#: Values on each side of a step at least.
APART: Final = 10
#: Values that a fixed percentage compares each with.
_REFERENCE: Final = 10
_LENGTHS: Final = (8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256)


@dataclass(frozen=True)
class Scored:
    """What a rule came to.

    Attributes:
        f1: harmonic mean of precision and recall over series with steps.
        precision, recall: of all changes told, those that were there; of all that were there, those told.
        false_per_hundred: changes told per hundred steady series.
    """

    f1: float
    precision: float
    recall: float
    false_per_hundred: float


def noise(kind: str, size: int, rng: np.random.Generator) -> F64:
    """Independent noise of standard deviation 1: ``normal``, ``skewed`` (log-normal), ``outliers`` (Student's t, 3)."""
    if kind == "skewed":
        raw = rng.lognormal(0.0, 0.6, size)
        skewed: F64 = (raw - np.exp(0.18)) / np.sqrt((np.exp(0.36) - 1) * np.exp(0.36))
        return skewed
    if kind == "outliers":
        found: F64 = rng.standard_t(3, size) / np.sqrt(3.0)
        return found
    return rng.standard_normal(size)


def stepped(rng: np.random.Generator, kind: str = "normal", least: float = 3.0) -> tuple[F64, list[int]]:
    """A series with one to three steps of ``least`` to twice as many standard deviations, and where they are."""
    steps = int(rng.integers(1, 4))
    lengths = rng.integers(APART, 3 * APART, steps + 1)
    at = np.cumsum(lengths)[:-1]
    values = noise(kind, int(lengths.sum()), rng)
    for position in at:
        values[position:] += rng.choice([-1, 1]) * rng.uniform(least, 2 * least)
    return _on_a_level(values, rng), [int(position) for position in at]


def steady(rng: np.random.Generator, kind: str = "normal", length: int = 90) -> F64:
    """A series that never changes."""
    return _on_a_level(noise(kind, length, rng), rng)


def _on_a_level(values: F64, rng: np.random.Generator) -> F64:
    """In some unit: noise of 1 to 10% of the level, as failover times and goodput have."""
    return 100.0 + values * rng.uniform(1.0, 10.0)


def by_rank(series: Sequence[F64]) -> list[list[int]]:
    """The rule of this package."""
    return [[change.at for change in found] for found in find_all([list(values) for values in series])]


def by_percentage(percent: float) -> Rule:
    """Tell a change where a value is so far from the mean of the ten before it, or of those since the last change."""

    def rule(series: Sequence[F64]) -> list[list[int]]:
        out = []
        for values in series:
            told: list[int] = []
            begin = 0
            for position in range(1, values.size):
                reference = values[max(begin, position - _REFERENCE) : position].mean()
                if abs(values[position] - reference) > abs(reference) * percent / 100:
                    told.append(position)
                    begin = position
            out.append(told)
        return out

    return rule


RULES: Final[dict[str, Rule]] = {
    "change points by rank": by_rank,
    "5% off the last ten": by_percentage(5),
    "10% off the last ten": by_percentage(10),
    "20% off the last ten": by_percentage(20),
}


def score(rule: Rule, *, kind: str = "normal", series: int = 200, seed: int = 1, least: float = 3.0) -> Scored:
    """Draw ``series`` with steps and as many steady ones, and count what a rule tells of them."""
    rng = np.random.default_rng(seed)
    drawn = [stepped(rng, kind, least) for _ in range(series)]
    hits = told = there = 0
    for (_, at), found in zip(drawn, rule([values for values, _ in drawn]), strict=True):
        hits += _hits(at, found)
        told += len(found)
        there += len(at)
    false = sum(len(found) for found in rule([steady(rng, kind) for _ in range(series)]))
    precision, recall = hits / max(told, 1), hits / max(there, 1)
    return Scored(2 * precision * recall / max(precision + recall, 1e-9), precision, recall, 100 * false / series)


def _hits(at: list[int], found: list[int]) -> int:
    """How many changes were found; what is told counts for one of them at most."""
    left, hits = list(found), 0
    for position in at:
        near = min(left, key=lambda one: abs(one - position), default=None)
        if near is not None and abs(near - position) <= TOLERANCE:
            left.remove(near)
            hits += 1
    return hits


def calibrate(length: int, shuffles: int, seed: int = 7) -> tuple[float, ...]:
    """The scores that the shares of shuffled series reach."""
    rng = np.random.default_rng(seed)
    most = []
    step = max(4_000_000 // (length * length), 1)
    for start in range(0, shuffles, step):
        rows = rng.permuted(np.tile(np.arange(length, dtype=np.float64), (min(step, shuffles - start), 1)), axis=1)
        most.append(best_scores(rows)[0].max(axis=1))
    reached = np.concatenate(most)
    return tuple(round(float(np.quantile(reached, 1 - share)), 3) for share in _SHARES)


def rows(series: int, seed: int) -> Iterator[tuple[str, str, Scored]]:
    """Noise, rule and what it came to."""
    for kind in ("normal", "skewed", "outliers"):
        for name, rule in RULES.items():
            yield kind, name, score(rule, kind=kind, series=series, seed=seed)


def main() -> None:
    """Print the table, or the thresholds."""
    parser = argparse.ArgumentParser(prog="python -m testbed_reports.trends.evaluation", description=__doc__)
    parser.add_argument("--series", type=int, default=500, help="series of each kind [500]")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn [1]")
    parser.add_argument("--calibrate", type=int, metavar="N", help="print thresholds from N shuffles each instead")
    arguments = parser.parse_args()
    console = Console()
    if arguments.calibrate:
        for length in _LENGTHS:
            console.print(f"    {length}: {calibrate(length, arguments.calibrate)},")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("noise", "rule", "F1", "precision", "recall", "false per 100 steady"):
        table.add_column(heading, justify="left" if heading in ("noise", "rule") else "right")
    for kind, name, found in rows(arguments.series, arguments.seed):
        numbers = (f"{found.f1:.3f}", f"{found.precision:.3f}", f"{found.recall:.3f}", f"{found.false_per_hundred:.1f}")
        table.add_row(kind, name, *numbers)
    console.print(table)


if __name__ == "__main__":
    main()
