"""A lease that this process holds: renewed by a thread, and over for this process before it is for others."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final, Self

from testbed.errors import InfrastructureError
from testbed.leases.store import BusyError, LeaseFacts, LeaseLostError, Leases, left_by_this_user, lost

DEFAULT_HEARTBEAT_S: Final = 10.0
#: Others may have the rig so many heartbeats after the last one: what was under way at the first has ended by then.
EXPIRY_HEARTBEATS: Final = 3
_TRIES_PER_HEARTBEAT: Final = 3


#: Names a lease that whoever started this process holds: a rig of it is worked on under that one, which stays.
LEASE_VARIABLE: Final = "TESTBED_LEASE"


def _now() -> float:
    """A clock that goes on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class HeldLease:
    """Rigs that are ours. Use as a context; leaving it gives them back.

    One heartbeat after it was last renewed this process touches nothing any more, whatever the reason: the database
    stopped, the network parted, the process was paused. Only two heartbeats later may others have the rigs.
    """

    def __init__(
        self,
        leases: Leases,
        facts: LeaseFacts,
        heartbeat_s: float,
        renewed: float,
        *,
        alone: socket.socket | None = None,
    ) -> None:
        self._leases = leases
        #: Of a lease that is another's: says to other processes that this one works under it.
        self._alone = alone
        self.facts = facts
        self.heartbeat_s = heartbeat_s
        self._good_until = renewed + heartbeat_s
        self._lost: LeaseLostError | None = None
        self._trouble = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease-heartbeat", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls,
        leases: Leases,
        names: Sequence[str],
        *,
        heartbeat_s: float = DEFAULT_HEARTBEAT_S,
        wait_s: float = 0.0,
        purpose: str = "",
        healing: bool = False,
    ) -> HeldLease:
        """Take rigs, all or none; raises as :meth:`Leases.take` does."""
        ttl_s = EXPIRY_HEARTBEATS * heartbeat_s
        facts = leases.take(names, ttl_s=ttl_s, wait_s=wait_s, purpose=purpose, healing=healing)
        # When exactly it was given out is not known here, for it may have been waited for: so it is renewed at once.
        renewed = _now()
        leases.renew(facts.id, ttl_s)
        return cls(leases, facts, heartbeat_s, renewed)

    @classmethod
    def adopt(
        cls, leases: Leases, name: str, *, heartbeat_s: float = DEFAULT_HEARTBEAT_S, stays: bool = False
    ) -> HeldLease:
        """Go on with a lease that was taken at the keyboard, or by who started this process.

        ``stays``: it is somebody else's, and not given back here; one process of a machine at a time. Raises
        UsageError, LeaseLostError, and BusyError where another works under it.
        """
        facts, renewed = leases.find(name), _now()
        with contextlib.ExitStack() as undo:
            alone = undo.enter_context(_alone_under(facts)) if stays else None
            leases.renew(facts.id, EXPIRY_HEARTBEATS * heartbeat_s)
            undo.pop_all()
        return cls(leases, facts, heartbeat_s, renewed, alone=alone)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def guard(self) -> None:
        """Raise LeaseLostError when nothing may be touched any more. Asks nobody, so it costs nothing."""
        if self._lost is not None:
            raise self._lost
        if self._ended.is_set():
            raise lost(self.facts.id, "it was given back")
        late = _now() - self._good_until
        if late > 0:
            # Not for good: a heartbeat that comes through before the lease has expired makes it good again.
            why = f"not renewed for {late + self.heartbeat_s:.1f} s{f': {self._trouble}' if self._trouble else ''}"
            raise lost(self.facts.id, why)

    def require(self, rig: str) -> None:
        """Raise LeaseLostError unless the database, too, says that this rig is ours: asked at each change."""
        self.guard()
        try:
            self._leases.require(self.facts.id, rig, self.token(rig))
        except LeaseLostError as error:
            self._lost = error
            raise
        self.guard()

    def token(self, rig: str) -> int:
        """The number that fences off whoever had the rig before. Raises LeaseLostError for a rig that is not of it."""
        if rig not in self.facts.tokens:
            raise lost(self.facts.id, f"{rig} is no part of it")
        return self.facts.tokens[rig]

    def release(self) -> None:
        """Give the rigs back. Where the database cannot be told, they are free when the lease expires."""
        if self._ended.is_set():
            return
        self.let_go()
        if self._alone is not None:
            self._alone.close()
            return
        with contextlib.suppress(InfrastructureError):
            self._leases.release(self.facts.id)

    def let_go(self) -> None:
        """Renew it no longer, and leave it as it is: whoever took it at the keyboard still has it."""
        self._ended.set()
        self._thread.join(self._leases.database.timeout_s + 1)

    def _renew(self) -> None:
        while not self._ended.wait(self.heartbeat_s / _TRIES_PER_HEARTBEAT):
            began = _now()
            try:
                self._leases.renew(self.facts.id, EXPIRY_HEARTBEATS * self.heartbeat_s)
            except LeaseLostError as error:
                self._lost = error
                return
            except InfrastructureError as error:
                self._trouble = f"{error.message}{f' ({error.found})' if error.found else ''}"
            else:
                # From before it was asked: the lease expires no earlier than that and three heartbeats.
                self._good_until, self._trouble = began + self.heartbeat_s, ""


def _alone_under(facts: LeaseFacts) -> socket.socket:
    """A name that only one process has, and that goes with it, whatever ends it. Raises BusyError."""
    alone = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        alone.bind(f"\0mrc-testbed/lease/{facts.id}")
    except OSError as error:
        alone.close()
        raise BusyError(
            "another process works under this lease",
            where=", ".join(facts.tokens),
            found=f"{facts.id}: {error.strerror}",
            expected="one at a time: what it changes on devices, the other would take for what a dead one has left",
            remedy=f"wait for its end, run without -n, or unset {LEASE_VARIABLE}, so that each run takes its own lease",
        ) from None
    return alone


@contextlib.contextmanager
def borrowed(
    leases: Leases, rig: str, *, purpose: str, heartbeat_s: float = DEFAULT_HEARTBEAT_S
) -> Iterator[HeldLease]:
    """A lease of a rig that may be unhealthy: this user's own from the keyboard, which stays, or one for meanwhile.

    Raises BusyError where somebody else has it.
    """
    held = next((each for each in leases.list() if each.name == rig and each.lease and each.left_s), None)
    if held is not None and held.lease is not None and left_by_this_user(held.owner):
        lease = HeldLease.adopt(leases, held.lease, heartbeat_s=heartbeat_s)
        try:
            yield lease
        finally:
            lease.let_go()
        return
    with HeldLease.take(leases, [rig], heartbeat_s=heartbeat_s, purpose=purpose, healing=True) as lease:
        yield lease


__all__ = ["DEFAULT_HEARTBEAT_S", "HeldLease", "LeaseLostError", "borrowed"]
