"""A figure of a benchmark: its samples, its limit, and what the two come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.bench.load import MOST_FOREIGN, Share


class Verdict(StrEnum):
    """What became of a limit. Unknown and not run are never met."""

    MET = "met"
    NOT_MET = "not met"
    UNKNOWN = "unknown"
    NOT_RUN = "not run"
    NO_LIMIT = ""


@dataclass(frozen=True)
class Limit:
    """What the project asks of a figure: ``<=`` or ``>=`` a value, for the figure's median or its worst sample."""

    op: str
    value: float
    of: str = "median"

    def holds(self, samples: Sequence[float]) -> bool:
        if self.of == "median":
            judged = statistics.median(samples)
        else:
            judged = max(samples) if self.op == "<=" else min(samples)
        return judged <= self.value if self.op == "<=" else judged >= self.value

    def __str__(self) -> str:
        return f"{self.of} {self.op} {self.value:g}"


@dataclass(frozen=True)
class Figure:
    """One line of a table.

    Attributes:
        name: what is measured.
        unit: of every sample.
        definition: one sentence.
        samples: one per repetition, in order.
        limit: what is asked, if anything.
        shares: how the processors were used during each sample, where that was watched.
        relative: both sides of a ratio suffer from other work, so that it can falsify the figure either way; a
            time it can only lengthen.
        unknown: why the samples decide nothing, whatever they say.
        not_run: why there are no samples.
    """

    name: str
    unit: str
    definition: str
    samples: tuple[float, ...] = ()
    limit: Limit | None = None
    shares: tuple[Share, ...] = ()
    relative: bool = False
    unknown: str = ""
    not_run: str = ""

    @property
    def disturbed(self) -> int:
        """Samples during which other work had more of the processors than a figure bears."""
        return sum(share.foreign > MOST_FOREIGN for share in self.shares)

    @property
    def verdict(self) -> Verdict:
        if not self.samples:
            return Verdict.NOT_RUN
        if self.limit is None:
            return Verdict.NO_LIMIT
        held = self.limit.holds(self.samples)
        disturbed = bool(self.shares) and 2 * self.disturbed > len(self.shares)
        if self.unknown or (disturbed and (self.relative or not held)):
            return Verdict.UNKNOWN
        return Verdict.MET if held else Verdict.NOT_MET

    @property
    def reason(self) -> str:
        """Why there is no verdict, where there is none."""
        if self.verdict is Verdict.NOT_RUN:
            return self.not_run or "no samples"
        if self.verdict is Verdict.UNKNOWN:
            return self.unknown or (
                f"other work took more than {MOST_FOREIGN:.0%} of the processors "
                f"in {self.disturbed} of {len(self.shares)} samples"
            )
        return ""


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Pair by pair, from runs that took turns."""
    return tuple(a / b for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True)
class Section:
    """What one benchmark found, and how it went about it."""

    name: str
    about: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
