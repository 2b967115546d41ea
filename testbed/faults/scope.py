"""A fault as a scope: injected when a ``with`` block is entered, healed when it is left, both stamped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from testbed.addressing import Path
from testbed.errors import BedError, InfrastructureError, UnhealedError, UsageError
from testbed.faults.operations import Operation
from testbed.faults.spec import FaultSpec
from testbed.lab import Port
from testbed.record import Event

_HEAL_TIMEOUT_S = 60.0

#: Whether nothing gets along a path while a fault is in force.
Kills = Callable[[Path], bool]

_NEVER = (1 << 63) - 1


@dataclass(frozen=True)
class Outage:
    """When some paths were dead, in CLOCK_REALTIME ns; each edge lies within ``[lo, hi]``.

    ``kills``: which paths; those through ``subject``, a node or link, where it is left out.
    """

    subject: str
    start_lo: int
    start_hi: int
    end_lo: int
    end_hi: int
    kills: Kills | None = field(default=None, compare=False)

    def hits(self, path: Path) -> bool:
        """Whether a path was dead."""
        if self.kills is not None:
            return self.kills(path)
        return self.subject in path.nodes or any(link.name == self.subject for link in path.links)


class FaultScope:
    """One fault. Enter it to inject; leave it and it is healed, on every way out.

    Args:
        name: what it is, for messages: ``reboot of p3-t1-0``.
        subject: what it happens to.
        operation: performs it.
        dies, revives: the events' ``what`` at which it hits, and at which everything passes again; they may alternate.
        kind: what it is without its subject: ``cold reboot``.
        spec: what it was made of.
        outage: whether there are paths that nothing passes meanwhile. A fault that loses some packets is none.
        kills: which paths those are; all through the subject where it is left out.
        counted: tells how many packets it has acted on, by port.
        heals_s: how long its heal is meant to take, beyond what any may.
        on_begin: told about the scope before it is injected, and whatever that raises keeps it from being injected.
        on_end: told about the scope once it is over.
    """

    def __init__(
        self,
        name: str,
        subject: str,
        operation: Operation,
        *,
        dies: str,
        revives: str,
        kind: str = "",
        spec: FaultSpec | None = None,
        outage: bool = True,
        kills: Kills | None = None,
        counted: Callable[[], Mapping[Port, int]] = dict,
        heals_s: float = 0.0,
        on_begin: Callable[[FaultScope], None] = lambda _: None,
        on_end: Callable[[FaultScope], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.subject = subject
        self.kind = kind or name.partition(" of ")[0]
        self.spec = spec
        self.is_outage = outage
        self._kills = kills
        self._counted = counted
        self._heal_timeout_s = _HEAL_TIMEOUT_S + heals_s
        self._on_begin = on_begin
        self._operation = operation
        self._dies = dies
        self._revives = revives
        self._on_end = on_end
        self._events: list[Event] = []
        self._listeners: list[Callable[[Event], None]] = []
        self._changed = threading.Condition()  # Over an RLock: a listener may look at the scope.
        self._heal = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BedError | None = None
        self._over = self._left = False
        self._at_end: list[Callable[[], None]] = []

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened so far, in order."""
        with self._changed:
            return tuple(self._events)

    @property
    def error(self) -> BedError | None:
        """Why it could not be injected or healed; None while all is well."""
        return self._error

    @property
    def unhealed(self) -> bool:
        """Whether it could not be undone. One that failed but left nothing behind is not unhealed."""
        return isinstance(self._error, UnhealedError)

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError(f"{self.name} was injected already", expected="a fault of its own for each `with`")
        self._on_begin(self)
        self._record(Event.now("fault", self.subject, f"{self.name} issued"))
        # A daemon, so that an interrupted process ends: whatever it leaves changed, the fabric puts back.
        self._thread = threading.Thread(target=self._perform, name=self.name, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            # Interrupted, maybe with the thread already at work: nobody is going to leave this scope.
            self._heal.set()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Whoever healed it early, inside its block, has heard of its error.
        if self._left:
            return
        self._left = True
        self._heal.set()
        assert self._thread is not None
        began = time.monotonic()
        try:
            self._thread.join(self._heal_timeout_s)
        finally:
            # Also when a second Ctrl-C cuts the waiting short.
            if self._thread.is_alive():
                self._fail(UnhealedError(f"{self.name} was not healed within {time.monotonic() - began:.0f} s"))
            self._on_end(self)
        # The verdict of what was measured comes first: a heal that failed must not hide why the block failed.
        if self._error is not None and error is None:
            raise self._error

    def wait(self, what: str, timeout_s: float = 30.0) -> Event:
        """Wait until an event of this kind (``stopped``, ``carrier lost``, ``forwarding``, …) and return it.

        Raises InfrastructureError on the deadline, with what did happen; the fault's own error if it failed.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for event in self._events:
                    if event.what == what:
                        return event
                if self._error is not None:
                    raise self._error
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    seen = ", ".join(event.what for event in self._events)
                    raise InfrastructureError(
                        f"{self.name} did not reach {what!r} within {timeout_s} s", found=seen or "no event"
                    )

    def listen(self, heard: Callable[[Event], None]) -> None:
        """Have ``heard`` called with every event, those that have happened first."""
        with self._changed:
            for event in self._events:
                heard(event)
            self._listeners.append(heard)

    def when_over(self, call: Callable[[], None]) -> None:
        """Have ``call`` called once it is over, whether by itself or healed; at once if it is."""
        with self._changed:
            if not self._over:
                self._at_end.append(call)
                return
        call()

    def find(self, what: str) -> Event | None:
        """The first event of this kind, if it has happened."""
        return next((event for event in self.events if event.what == what), None)

    @property
    def observed(self) -> Event | None:
        """When it first hit; failover counts from here."""
        return self.find(self._dies)

    @property
    def healed(self) -> Event | None:
        """When everything passes again, for good as far as it is known by now."""
        windows = self._windows()
        return windows[-1][1] if windows else None

    @property
    def counted(self) -> Mapping[Port, int]:
        """Port → packets that it has dropped, changed, copied or marked there; empty for a fault without rules."""
        return self._counted()

    def outages(self) -> list[Outage]:
        """When what was dead; empty if nothing was. Of one that never healed the end is the end of time."""
        return [
            Outage(
                self.subject,
                start.t_ns - start.uncertainty_ns,
                start.t_ns,
                _NEVER if end is None else end.t_ns - end.uncertainty_ns,
                _NEVER if end is None else end.t_ns,
                self._kills,
            )
            for start, end in (self._windows() if self.is_outage else [])
        ]

    def _windows(self) -> list[tuple[Event, Event | None]]:
        """From each time it hit to when that passed."""
        windows: list[tuple[Event, Event | None]] = []
        for event in self.events:
            over = not windows or windows[-1][1] is not None
            if event.what == self._dies and over:
                windows.append((event, None))
            elif event.what == self._revives and not over:
                windows[-1] = (windows[-1][0], event)
        return windows

    def _record(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()
            for heard in list(self._listeners):
                try:
                    heard(event)
                except Exception:
                    # Whoever cannot be told (a closed terminal) must not keep a fault from healing.
                    self._listeners.remove(heard)

    def _perform(self) -> None:
        try:
            self._operation(self._record, self._heal.wait)
        except BedError as error:
            self._fail(error)
        except Exception as error:  # A defect of ours must reach the block that waits, not vanish in a thread.
            self._fail(UnhealedError(f"{self.name} failed", found=f"{type(error).__name__}: {error}"))
        with self._changed:
            self._over = True
        for call in self._at_end:
            call()

    def _fail(self, error: BedError) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
