"""From a schedule under which a check fails to the least of it under which it still does.

Delta debugging (Zeller and Hildebrandt, 2002, algorithm ddmin) over the events of a schedule. What fails only now and
then is tried several times before it is taken for harmless, and in the end the smallest one is tried again, so that it
is known how often it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from testbed.faults.schedule import Planned, Schedule

#: Whether the check fails under a schedule.
Fails = Callable[[Schedule], bool]


@dataclass(frozen=True)
class Shrunk:
    """What shrinking came to.

    Attributes:
        schedule: the smallest one found that fails.
        began_with: events of the one it began with.
        runs: how often the check ran, the last confirmation included.
        failed, confirmed: of so many runs of the smallest one at the end, so many failed.
        exhausted: whether it ended because no more runs were allowed; there may be a smaller one then.
    """

    schedule: Schedule
    began_with: int
    runs: int
    failed: int
    confirmed: int
    exhausted: bool

    def line(self) -> str:
        """The whole in a sentence."""
        more = "; there may be less, but no more runs were allowed" if self.exhausted else ""
        return (
            f"{self.began_with} events shrunk to {len(self.schedule.events)} in {self.runs} runs; "
            f"reproduced {self.failed} of {self.confirmed} times{more}"
        )


class _Budget:
    """Runs the check, at most so often."""

    def __init__(self, fails: Fails, schedule: Schedule, tries: int, most: int) -> None:
        self._fails = fails
        self._schedule = schedule
        self._tries = tries
        self._left = most
        self.runs = 0

    @property
    def spent(self) -> bool:
        """Whether no run is left."""
        return self._left <= 0

    def fails(self, events: Sequence[Planned]) -> bool:
        """Whether one of a few runs under these events fails."""
        for _ in range(self._tries):
            if self.spent:
                return False
            self._left -= 1
            self.runs += 1
            if self._fails(self._schedule.only(events)):
                return True
        return False


def shrink(schedule: Schedule, fails: Fails, *, tries: int = 1, most_runs: int = 200, confirm: int = 5) -> Shrunk:
    """Find a small part of a schedule under which the check still fails.

    Args:
        schedule: one under which it failed.
        fails: runs the check under a schedule.
        tries: how often a part must pass to be taken for harmless; more than 1 for what fails now and then.
        most_runs: of the check, before the confirmation.
        confirm: runs of the smallest one at the end.

    Returns:
        one from which no single event can be left out, unless the runs were used up before.
    """
    budget = _Budget(fails, schedule, tries, most_runs)
    events = _ddmin(list(schedule.events), budget)
    smallest = schedule.only(events)
    failed = sum(fails(smallest) for _ in range(confirm))
    return Shrunk(smallest, len(schedule.events), budget.runs + confirm, failed, confirm, budget.spent)


def _ddmin(events: list[Planned], budget: _Budget) -> list[Planned]:
    if not budget.spent and budget.fails([]):
        return []
    parts = 2
    while len(events) >= 2 and not budget.spent:
        chunks = _split(events, parts)
        reduced = next((chunk for chunk in chunks if budget.fails(chunk)), None)
        if reduced is not None:
            events, parts = reduced, 2
            continue
        # With two parts the rest of one is the other.
        rests = [[event for other in chunks if other is not chunk for event in other] for chunk in chunks]
        reduced = next((rest for rest in rests if budget.fails(rest)), None) if parts > 2 else None
        if reduced is not None:
            events, parts = reduced, max(parts - 1, 2)
        elif parts < len(events):
            parts = min(len(events), 2 * parts)
        else:
            break
    return events


def _split(events: list[Planned], parts: int) -> list[list[Planned]]:
    bounds = [len(events) * number // parts for number in range(parts + 1)]
    return [events[low:high] for low, high in pairwise(bounds)]
