"""The tables, the same in SQLite and PostgreSQL. Times are the database's own clock, in seconds since 1970."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Integer, MetaData, String, Table, Text

metadata: Final = MetaData()

#: ``fence`` is the highest number ever given out for the rig: a lease's number is only good while it is that.
rigs: Final = Table(
    "rigs",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("health", String(16), nullable=False),
    Column("reason", Text, nullable=False),
)
leases: Final = Table(
    "leases",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("taken", Double, nullable=False),
    Column("expires", Double, nullable=False),
)
#: One row a rig that is held: the primary key alone makes a second holder impossible.
holds: Final = Table(
    "holds",
    metadata,
    Column("rig", String(64), ForeignKey("rigs.name"), primary_key=True),
    Column("lease", String(32), ForeignKey("leases.id"), nullable=False),
    Column("token", BigInteger, nullable=False),
)
#: Who waits for which rigs, the longest first. Whoever does not say in time that he still waits is left out.
queue: Final = Table(
    "queue",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("waiter", String(32), nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("rigs", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("seen", Double, nullable=False),
)
#: What was changed on devices, and how it is undone: on disk before it is done.
changes: Final = Table(
    "changes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("rig", String(64), nullable=False, index=True),
    Column("node", Text, nullable=False),
    Column("lease", String(32), nullable=False),
    Column("what", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("inverse", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", Double, nullable=False),
)
#: The last good check of each rig: what a later one is compared with, and where its devices are.
checks: Final = Table(
    "checks",
    metadata,
    Column("rig", String(64), primary_key=True),
    Column("at", Double, nullable=False),
    Column("told", Text, nullable=False),
    Column("devices", Text, nullable=False),
)
