"""The journal of device changes: how each is undone is in the database, on disk, before it is made.

It is beside the leases, not a file of the runner's: so that another machine can undo what a dead one left, and so that
the entry and the check that the rig is still ours are one transaction.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from testbed.lab.inventory import Device
from testbed.leases.database import Database, Transaction
from testbed.leases.held import HeldLease
from testbed.leases.store import OPEN_STATES, require
from testbed.leases.tables import changes

INTENDED: Final = "intended"
MADE: Final = "made"
UNDONE: Final = "undone"
STUCK: Final = "stuck"


@dataclass(frozen=True)
class Entry:
    """A change as the journal knows it.

    Attributes:
        id: its own. rig, node, device: what was changed.
        what: what a person calls it.
        inverse: how the device's driver undoes it.
        state: ``intended``, ``made``, ``undone``, or ``stuck`` with the reason why it cannot be undone.
        lease: of the run that made it.
    """

    id: str
    rig: str
    node: str
    what: str
    device: Mapping[str, Any]
    inverse: Mapping[str, Any]
    state: str
    reason: str
    lease: str


class OpenChange:
    """An entry whose change may be made, or undone, by whoever holds the rig; see :mod:`testbed.fabric.devices`."""

    def __init__(self, journal: Journal, entry: Entry, lease: HeldLease) -> None:
        self._journal = journal
        self._lease = lease
        self.entry = entry

    @property
    def node(self) -> str:
        """The device it is about."""
        return self.entry.node

    def require_ours(self) -> None:
        """Raise LeaseLostError when this process does not hold the rig any more."""
        self._lease.require(self.entry.rig)

    def made(self) -> None:
        """Say that it was made."""
        self._journal.note(self.entry.id, MADE)

    def undone(self) -> None:
        """Say that it was undone: nothing is left of it."""
        self._journal.note(self.entry.id, UNDONE)

    def stuck(self, reason: str) -> None:
        """Say that it could not be undone."""
        self._journal.note(self.entry.id, STUCK, reason)


class Journal:
    """Changes of devices in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, lease: HeldLease, device: Device, what: str, inverse: Mapping[str, Any]) -> OpenChange:
        """Write down what is about to be done to a device and how it is undone; on disk when this returns.

        Raises LeaseLostError when the rig is not ours any more; nothing may be changed then.
        """
        lease.guard()
        token = lease.token(device.rig)
        number = secrets.token_hex(8)
        row = {
            "id": number,
            "rig": device.rig,
            "node": device.node,
            "lease": lease.facts.id,
            "what": what,
            "device": json.dumps(device.to_json()),
            "inverse": json.dumps(dict(inverse)),
            "state": INTENDED,
            "reason": "",
        }

        def work(tx: Transaction) -> None:
            require(tx, lease.facts.id, device.rig, token)
            tx.execute(sa.insert(changes).values(**row, since=tx.now))

        self._database.run(work)
        entry = Entry(number, device.rig, device.node, what, device.to_json(), inverse, INTENDED, "", lease.facts.id)
        return OpenChange(self, entry, lease)

    def take_over(self, entry: Entry, lease: HeldLease) -> OpenChange:
        """An entry that a dead run left, to be undone under a lease of one's own."""
        return OpenChange(self, entry, lease)

    def note(self, number: str, state: str, reason: str = "") -> None:
        """Write down what became of a change; undone ones are forgotten."""

        def work(tx: Transaction) -> None:
            if state == UNDONE:
                tx.execute(sa.delete(changes).where(changes.c.id == number))
            else:
                values = {"state": state, "reason": reason[:2000]}
                tx.execute(sa.update(changes).where(changes.c.id == number).values(**values))

        self._database.run(work)

    def keep(self, change: OpenChange) -> None:
        """Forget a change that is to stay: the device is now as it is meant to be."""
        self.note(change.entry.id, UNDONE)

    def to_undo(self, rig: str | None = None) -> list[Entry]:
        """What is not undone, of a rig or of all, the last change first: in the order in which it is to be undone."""
        wanted = sa.select(changes).where(changes.c.state.in_(OPEN_STATES)).order_by(changes.c.number.desc())
        if rig is not None:
            wanted = wanted.where(changes.c.rig == rig)
        rows = self._database.run(lambda tx: tx.execute(wanted).all())
        return [
            Entry(
                row.id,
                row.rig,
                row.node,
                row.what,
                json.loads(row.device),
                json.loads(row.inverse),
                row.state,
                row.reason,
                row.lease,
            )
            for row in rows
        ]
