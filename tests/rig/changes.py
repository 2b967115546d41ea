"""A journal under a lease for the one device of a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from testbed.fabric.devices import Access
from testbed.fabric.rig.rig import LeasedChanges, undo_all
from testbed.leases import Database, HeldLease, Journal, Leases


class OneRig:
    """The rig ``test``, held: its journal, and the access of its holder."""

    def __init__(self, database: Database, lease: HeldLease) -> None:
        self.journal = Journal(database)
        self.lease = lease
        self.access = Access(guard=lease.guard)
        self.changes = LeasedChanges(self.journal, lease)

    def put_back(self) -> list[str]:
        """Undo everything as a run's end does; what remains."""
        return undo_all(self.journal, self.lease, "test", self.access)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[OneRig]:
    """The rig for as long as the context lasts."""
    with (
        Database(f"sqlite:///{folder / 'leases.sqlite'}") as database,
        HeldLease.take(Leases(database), ["test"], heartbeat_s=10) as lease,
    ):
        rig = OneRig(database, lease)
        try:
            yield rig
        finally:
            rig.access.close()
