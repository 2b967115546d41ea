"""Taking, renewing and giving back leases: what the database does, one transaction each."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from testbed.errors import InfrastructureError, UsageError, nearest
from testbed.leases.database import Database, Transaction
from testbed.leases.tables import changes, holds, leases, queue, rigs

HEALTHY: Final = "healthy"
UNHEALTHY: Final = "unhealthy"
#: A change that is not undone yet.
OPEN_STATES: Final = ("intended", "made", "stuck")
_ASK_EVERY_S: Final = 0.5
#: Whoever waits says so each time he asks; one who has not for so long has gone.
_GONE_S: Final = 20 * _ASK_EVERY_S


class BusyError(InfrastructureError):
    """A rig is held by somebody else, or others have waited for it longer."""


class UnhealthyError(InfrastructureError):
    """A rig is not fit to be handed out."""


class LeaseLostError(InfrastructureError):
    """The lease has expired or was taken away: its devices are not touched any more."""


@dataclass(frozen=True)
class LeaseFacts:
    """A lease. ``tokens``: rig → the number that fences off everybody before."""

    id: str
    owner: str
    purpose: str
    taken: float
    expires: float
    tokens: dict[str, int]


@dataclass(frozen=True)
class RigFacts:
    """A rig as it stands. ``left_s`` of its lease, 0 when it has expired; ``to_undo``: changes left on its devices."""

    name: str
    health: str
    reason: str
    lease: str | None
    owner: str
    purpose: str
    left_s: float
    to_undo: int
    waiting: tuple[str, ...]


def this_owner() -> str:
    """Who runs this, for people: user, host, process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def of_this_user(owner: str) -> bool:
    """Whether an owner is this user on this machine, whatever the process."""
    return owner.rpartition(":")[0] == this_owner().rpartition(":")[0]


def left_by_this_user(owner: str) -> bool:
    """Whether this user took it on this machine by a command that has ended, so that it is his to go on with."""
    pid = owner.rpartition(":")[2]
    return of_this_user(owner) and pid.isdecimal() and not Path(f"/proc/{pid}").exists()


class Leases:
    """The leases in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def take(
        self,
        names: Sequence[str],
        *,
        ttl_s: float,
        wait_s: float = 0.0,
        owner: str | None = None,
        purpose: str = "",
        healing: bool = False,
    ) -> LeaseFacts:
        """Take all of these rigs, or none.

        Args:
            names: the rigs.
            ttl_s: the lease expires so long after it was last renewed.
            wait_s: so long others may keep them; those who have waited longer come first.
            owner: who is shown to hold them; this process by default.
            purpose: what for.
            healing: to undo what a dead run left. Only this is given a rig with something to undo, or an unhealthy one.

        Raises BusyError when they are not free in time, UnhealthyError for one that is not handed out.
        """
        wanted = sorted(set(names))
        if not wanted:
            raise UsageError("a lease is of at least one rig")
        waiter, owner = secrets.token_hex(8), owner or this_owner()
        deadline = time.monotonic() + wait_s
        pause = threading.Event()
        try:
            while True:
                last = time.monotonic() >= deadline
                taken = self.database.run(
                    lambda tx: _try(tx, wanted, waiter, owner, purpose, ttl_s, queued=wait_s > 0, healing=healing)
                )
                if isinstance(taken, LeaseFacts):
                    return taken
                if last:
                    raise taken
                pause.wait(min(_ASK_EVERY_S, max(0.0, deadline - time.monotonic())))
        except BaseException:
            if wait_s > 0:
                self.database.run(lambda tx: tx.execute(sa.delete(queue).where(queue.c.waiter == waiter)).rowcount)
            raise

    def renew(self, lease: str, ttl_s: float) -> None:
        """Have it expire so much later from now. Raises LeaseLostError once it has expired or is gone."""

        def work(tx: Transaction) -> None:
            expires = tx.execute(sa.select(leases.c.expires).where(leases.c.id == lease)).scalar()
            if expires is None or expires <= tx.now:
                raise lost(lease, "it has expired" if expires is not None else "it was released or taken away")
            later = max(expires, tx.now + ttl_s)
            tx.execute(sa.update(leases).where(leases.c.id == lease).values(expires=later))

        self.database.run(work)

    def require(self, lease: str, rig: str, token: int) -> None:
        """Raise LeaseLostError unless this lease holds the rig now, by this very number."""
        self.database.run(lambda tx: require(tx, lease, rig, token))

    def release(self, lease: str) -> tuple[str, ...]:
        """Give its rigs back; which they were. No error when it has gone already."""

        def work(tx: Transaction) -> tuple[str, ...]:
            names = tx.execute(sa.select(holds.c.rig).where(holds.c.lease == lease)).scalars().all()
            tx.execute(sa.delete(holds).where(holds.c.lease == lease))
            tx.execute(sa.delete(leases).where(leases.c.id == lease))
            return tuple(sorted(names))

        return self.database.run(work)

    def find(self, name: str) -> LeaseFacts:
        """The lease of this id, or of the rig of this name. Raises UsageError with the nearest."""

        def work(tx: Transaction) -> LeaseFacts:
            ids = tx.execute(sa.select(leases.c.id)).scalars().all()
            held = {row.rig: row.lease for row in tx.execute(sa.select(holds))}
            wanted = name if name in ids else held.get(name)
            if wanted is None:
                known = [*held, *ids]
                raise UsageError(f"there is no lease {name!r}", found=name, nearest=nearest(name, known))
            row = tx.execute(sa.select(leases).where(leases.c.id == wanted)).one()
            tokens = {hold.rig: hold.token for hold in tx.execute(sa.select(holds).where(holds.c.lease == wanted))}
            return LeaseFacts(row.id, row.owner, row.purpose, row.taken, row.expires, tokens)

        return self.database.run(work)

    def mark(self, rig: str, *, healthy: bool, reason: str = "") -> None:
        """Say whether a rig is fit to be handed out, and why not."""

        def work(tx: Transaction) -> None:
            _know(tx, [rig])
            health = HEALTHY if healthy else UNHEALTHY
            tx.execute(sa.update(rigs).where(rigs.c.name == rig).values(health=health, reason=reason[:2000]))

        self.database.run(work)

    def list(self) -> list[RigFacts]:
        """Every rig that is known, by name."""

        def work(tx: Transaction) -> list[RigFacts]:
            by_id = {row.id: row for row in tx.execute(sa.select(leases))}
            held = {row.rig: by_id[row.lease] for row in tx.execute(sa.select(holds))}
            waiting = tx.execute(sa.select(queue).where(queue.c.seen > tx.now - _GONE_S).order_by(queue.c.number)).all()
            undo = _to_undo(tx)
            found = []
            for row in tx.execute(sa.select(rigs).order_by(rigs.c.name)):
                lease = held.get(row.name)
                waiters = tuple(entry.owner for entry in waiting if row.name in json.loads(entry.rigs))
                found.append(
                    RigFacts(
                        row.name,
                        row.health,
                        row.reason,
                        lease=lease.id if lease else None,
                        owner=lease.owner if lease else "",
                        purpose=lease.purpose if lease else "",
                        left_s=max(0.0, lease.expires - tx.now) if lease else 0.0,
                        to_undo=undo.get(row.name, 0),
                        waiting=waiters,
                    )
                )
            return found

        return self.database.run(work)


def lost(lease: str, why: str) -> LeaseLostError:
    """The error for a lease that is not held any more."""
    return LeaseLostError("the lease is lost, and no device is touched any more", where=f"lease {lease}", found=why)


def require(tx: Transaction, lease: str, rig: str, token: int) -> None:
    """Raise LeaseLostError unless this lease holds the rig, by this number, at this moment of the database's clock."""
    held = tx.execute(
        sa.select(holds.c.token, leases.c.expires)
        .join(leases, leases.c.id == holds.c.lease)
        .where(holds.c.rig == rig, holds.c.lease == lease)
    ).one_or_none()
    if held is None:
        raise lost(lease, f"{rig} was released or taken away")
    if held.token != token:
        raise lost(lease, f"{rig} has been given out anew: number {held.token}, not {token}")
    if held.expires <= tx.now:
        raise lost(lease, f"it expired {tx.now - held.expires:.1f} s ago")


def _know(tx: Transaction, names: Sequence[str]) -> None:
    known = set(tx.execute(sa.select(rigs.c.name).where(rigs.c.name.in_(names))).scalars())
    for name in names:
        if name not in known:
            tx.execute(sa.insert(rigs).values(name=name, fence=0, health=HEALTHY, reason=""))


def _to_undo(tx: Transaction) -> dict[str, int]:
    """Rig → changes left on its devices."""
    count = sa.func.count().label("count")
    wanted = sa.select(changes.c.rig, count).where(changes.c.state.in_(OPEN_STATES)).group_by(changes.c.rig)
    return {row["rig"]: row["count"] for row in tx.execute(wanted).mappings()}


def _try(
    tx: Transaction,
    names: list[str],
    waiter: str,
    owner: str,
    purpose: str,
    ttl_s: float,
    *,
    queued: bool,
    healing: bool,
) -> LeaseFacts | BusyError:
    """Take all, or say why not, having queued up; raise what waiting does not change."""
    _know(tx, names)
    _sweep(tx)
    undo = _to_undo(tx)
    busy = _held(tx, names) or _before(tx, names, waiter)
    if busy is None and not healing:
        for row in tx.execute(sa.select(rigs).where(rigs.c.name.in_(names)).order_by(rigs.c.name)):
            if row.health != HEALTHY:
                remedy = f"put it right, then `testbed lease mark {row.name} healthy`"
                raise UnhealthyError("this rig is not handed out", where=row.name, found=row.reason, remedy=remedy)
            if undo.get(row.name):
                found = f"{undo[row.name]} changes that a run which is gone has left on its devices"
                raise UnhealthyError(
                    "this rig is not handed out before it is healed", where=row.name, found=found, remedy="testbed heal"
                )
    if busy is not None:
        if queued:
            _queue_up(tx, names, waiter, owner)
        return busy
    return _hand_out(tx, names, waiter, owner, purpose, ttl_s)


def _sweep(tx: Transaction) -> None:
    """Expired leases and waiters who have gone."""
    dead = sa.select(leases.c.id).where(leases.c.expires <= tx.now)
    tx.execute(sa.delete(holds).where(holds.c.lease.in_(dead)))
    tx.execute(sa.delete(leases).where(leases.c.expires <= tx.now))
    tx.execute(sa.delete(queue).where(queue.c.seen <= tx.now - _GONE_S))


def _held(tx: Transaction, names: list[str]) -> BusyError | None:
    held = tx.execute(
        sa.select(holds.c.rig, leases.c.owner, leases.c.expires, leases.c.purpose)
        .join(leases, leases.c.id == holds.c.lease)
        .where(holds.c.rig.in_(names))
        .order_by(holds.c.rig)
    ).first()
    if held is None:
        return None
    what = f", for {held.purpose}" if held.purpose else ""
    found = f"{held.owner} holds it{what}; it expires in {held.expires - tx.now:.0f} s unless it is renewed"
    return BusyError("this rig is held by somebody else", where=held.rig, found=found, remedy="wait, with --wait")


def _before(tx: Transaction, names: list[str], waiter: str) -> BusyError | None:
    """Whoever has waited longer for any of them."""
    for row in tx.execute(sa.select(queue).order_by(queue.c.number)):
        if row.waiter == waiter:
            return None
        common = sorted(set(json.loads(row.rigs)) & set(names))
        if common:
            found = f"{row.owner}, for {tx.now - row.since:.0f} s"
            return BusyError("others have waited for this rig longer", where=common[0], found=found)
    return None


def _queue_up(tx: Transaction, names: list[str], waiter: str, owner: str) -> None:
    seen = tx.execute(sa.update(queue).where(queue.c.waiter == waiter).values(seen=tx.now)).rowcount
    if not seen:
        row = {"waiter": waiter, "owner": owner, "rigs": json.dumps(names), "since": tx.now, "seen": tx.now}
        tx.execute(sa.insert(queue).values(**row))


def _hand_out(tx: Transaction, names: list[str], waiter: str, owner: str, purpose: str, ttl_s: float) -> LeaseFacts:
    made = LeaseFacts(secrets.token_hex(8), owner, purpose, tx.now, tx.now + ttl_s, {})
    tx.execute(
        sa.insert(leases).values(id=made.id, owner=owner, purpose=purpose, taken=made.taken, expires=made.expires)
    )
    for name in names:
        tx.execute(sa.update(rigs).where(rigs.c.name == name).values(fence=rigs.c.fence + 1))
        token = tx.execute(sa.select(rigs.c.fence).where(rigs.c.name == name)).scalar_one()
        tx.execute(sa.insert(holds).values(rig=name, lease=made.id, token=token))
        made.tokens[name] = token
    tx.execute(sa.delete(queue).where(queue.c.waiter == waiter))
    return made
