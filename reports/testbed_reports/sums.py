"""What the results of a run add up to, apart for each thing that labs were made of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from testbed.measure.result import Result


@dataclass
class Sum:
    """Counts over results.

    Attributes:
        results: how many there are.
        unexplained: packets that no hop accounts for.
        uncounted: results that do not know how many those are.
        faults: that were injected.
        unhealed: those that were not undone; ``unclear``: of which nobody could tell.
        failovers: times in seconds, of every fault that has one.
    """

    results: int = 0
    unexplained: int = 0
    uncounted: int = 0
    faults: int = 0
    unhealed: int = 0
    unclear: int = 0
    failovers: list[float] = field(default_factory=list)

    def join(self, other: Sum) -> None:
        """Count what another counted."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Sums:
    """Counts by what the labs were made of.

    Attributes:
        of: ``netns``, ``rig``, ``front end`` → counts; those that results are of.
        unreadable: results that cannot be read, so that nobody knows what they were of.
    """

    of: defaultdict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))
    unreadable: int = 0

    def add(self, result: Result) -> None:
        """Count one result."""
        self.of[result.realised].join(
            Sum(
                results=1,
                unexplained=result.unexplained_packets or 0,
                uncounted=int(result.unexplained_packets is None),
                faults=len(result.faults),
                unhealed=sum(fault.healed is False for fault in result.faults),
                unclear=sum(fault.healed is None for fault in result.faults),
                failovers=[
                    figure.value
                    for figure in result.figures
                    if (figure.name, figure.scope) == ("failover", "all") and figure.value is not None
                ],
            )
        )

    def join(self, other: Sums) -> None:
        """Count what another counted."""
        for realised, each in other.of.items():
            self.of[realised].join(each)
        self.unreadable += other.unreadable

    @property
    def whole(self) -> Sum:
        """All results together."""
        out = Sum()
        for each in self.of.values():
            out.join(each)
        return out
