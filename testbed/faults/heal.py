"""What processes that are gone have left broken: looked for in the journal, put right by the fabric, told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import BedError
from testbed.fabric.protocols import Fabric
from testbed.faults.journal import HEALED, UNHEALED, Entry, Journal

#: The running fabric of a name for as long as the context lasts; None where there is none any more.
Find = Callable[[str], AbstractContextManager[Fabric | None]]


@dataclass(frozen=True)
class Outcome:
    """What became of a fault that was left behind.

    ``remains``: a line for each thing that is not as planned; ``ended``: the fabric had ended, and the fault with it.
    """

    entry: Entry
    how: str
    remains: tuple[str, ...] = ()
    ended: bool = False

    @property
    def healed(self) -> bool:
        """Whether nothing of it is left."""
        return not self.remains

    def lines(self) -> list[str]:
        """What to tell a person."""
        state = "healed" if self.healed else "not healed"
        head = f"{self.entry.fabric}: {self.entry.name}, left by process {self.entry.owner.pid}: {state}, {self.how}"
        return [head, *(f"{self.entry.fabric}: remains: {line}" for line in self.remains)]


def heal(journal: Journal, find: Find, fabric: str | None = None) -> list[Outcome]:
    """Put right what processes that are gone have left behind, and write down what came of it.

    Args:
        journal: where it is looked for.
        find: finds a fabric, for as long as this is at it.
        fabric: only this one.

    Raises InfrastructureError where the journal cannot be read.
    """
    by_fabric: dict[str, list[Entry]] = defaultdict(list)
    for entry in journal.left_behind():
        if fabric in (None, entry.fabric):
            by_fabric[entry.fabric].append(entry)
    outcomes = []
    for name, entries in by_fabric.items():
        for outcome in _of_one_fabric(name, entries, find):
            reason = outcome.how if outcome.healed else f"{outcome.how}: {'; '.join(outcome.remains)}"
            journal.note(outcome.entry.id, HEALED if outcome.healed else UNHEALED, reason=reason[:2000])
            outcomes.append(outcome)
    return outcomes


def _of_one_fabric(name: str, entries: list[Entry], find: Find) -> list[Outcome]:
    try:
        with find(name) as fabric:
            here = [] if fabric is None else [entry for entry in entries if entry.instance == fabric.instance]
            # Of a number that somebody else has by now the claims may be that one's.
            dead = {entry.owner.pid for entry in here if not Path(f"/proc/{entry.owner.pid}").exists()}
            remains = tuple(fabric.heal(dead)) if fabric is not None and here else ()
    except BedError as error:
        return [Outcome(entry, "the fabric cannot be asked", (error.message,)) for entry in entries]
    how = "the fabric is not as planned" if remains else "everything is as planned"
    return [
        Outcome(entry, how, remains)
        if entry in here
        else Outcome(entry, "with the fabric, which has ended", ended=True)
        for entry in entries
    ]
