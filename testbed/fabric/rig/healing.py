"""What runs that are gone have left on devices: undone by whoever looks after it, from any machine."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.fabric.devices import Access
from testbed.fabric.rig.rig import undo_all
from testbed.leases import BusyError, Database, HeldLease, Journal, Leases


@dataclass(frozen=True)
class RigOutcome:
    """What became of a rig with changes left on it.

    ``remains``: a line for each device that could not be put back; ``busy``: a run holds the rig, and undoes its own.
    """

    rig: str
    undone: int
    remains: tuple[str, ...] = ()
    busy: str = ""

    @property
    def healed(self) -> bool:
        """Whether nothing is left that nobody is responsible for."""
        return not self.remains

    def lines(self) -> list[str]:
        """What to tell a person."""
        if self.busy:
            return [f"{self.rig}: left alone: {self.busy}"]
        if not self.remains:
            return [f"{self.rig}: healed, {self.undone} changes undone"]
        return [f"{self.rig}: not healed", *(f"{self.rig}: remains: {line}" for line in self.remains)]


def heal(database: Database, rig: str | None = None, *, heartbeat_s: float = 10.0) -> list[RigOutcome]:
    """Undo what runs that are gone have left, on one rig or on all; a rig that somebody holds is left alone.

    A rig of which something remains is marked unhealthy, and not handed out. Raises InfrastructureError for the
    database.
    """
    leases, journal = Leases(database), Journal(database)
    rigs = sorted({entry.rig for entry in journal.to_undo(rig)})
    return [_heal_one(leases, journal, name, heartbeat_s) for name in rigs]


def _heal_one(leases: Leases, journal: Journal, rig: str, heartbeat_s: float) -> RigOutcome:
    try:
        lease = HeldLease.take(leases, [rig], heartbeat_s=heartbeat_s, purpose="healing", healing=True)
    except BusyError as error:
        return RigOutcome(rig, 0, busy=error.found)
    with lease:
        before = len(journal.to_undo(rig))
        access = Access(guard=lease.guard)
        try:
            remains = undo_all(journal, lease, rig, access)
        finally:
            access.close()
        if remains:
            leases.mark(rig, healthy=False, reason="not healed: " + "; ".join(remains))
        elif any(entry.name == rig and entry.reason.startswith("not healed: ") for entry in leases.list()):
            leases.mark(rig, healthy=True)
        return RigOutcome(rig, before - len(journal.to_undo(rig)), tuple(remains))
