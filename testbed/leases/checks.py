"""What the last good check of each rig found, and which devices it has: beside the leases, for every runner."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from testbed.errors import UsageError
from testbed.lab.inventory import Device
from testbed.leases.database import Database, Transaction
from testbed.leases.tables import checks


@dataclass(frozen=True)
class Checked:
    """The last good check of a rig.

    Attributes:
        at: seconds since 1970, on the database's clock. told: what devices said then.
        devices: those that it had, without any secret; none where another version of the testbed wrote them.
    """

    at: float
    told: Mapping[str, str]
    devices: tuple[Device, ...]


class Checks:
    """Good checks in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self, rig: str) -> Checked | None:
        """The last good check of a rig; None where there was none."""
        wanted = sa.select(checks).where(checks.c.rig == rig)
        row = self._database.run(lambda tx: tx.execute(wanted).one_or_none())
        if row is None:
            return None
        return Checked(row.at, json.loads(row.told), _devices(row.devices))

    def note(self, rig: str, told: Mapping[str, str], devices: Iterable[Device]) -> None:
        """Write a good check down, in the place of the one before."""
        row = {"told": json.dumps(dict(told)), "devices": json.dumps([device.to_json() for device in devices])}

        def work(tx: Transaction) -> None:
            tx.execute(sa.delete(checks).where(checks.c.rig == rig))
            tx.execute(sa.insert(checks).values(rig=rig, at=tx.now, **row))

        self._database.run(work)


def _devices(text: str) -> tuple[Device, ...]:
    try:
        return tuple(Device.from_json(each) for each in json.loads(text))
    except UsageError:
        return ()
