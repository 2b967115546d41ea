"""The thread that reads outcomes while the agents probe, has them judged, and tells who listens."""

from __future__ import annotations

import threading
from collections.abc import Callable

from testbed.errors import BedError, InfrastructureError
from testbed.localise.focus import Focus
from testbed.localise.localiser import Localiser
from testbed.localise.suspects import Change, Suspect
from testbed.record import now_ns
from testbed.traffic.prober.run import ProberRun

#: How often outcomes are judged.
STEP_S = 0.1

Listener = Callable[[tuple[Suspect, ...], Change], None]


class Watch:
    """Judges outcomes until it is stopped. Everything public may be called from any thread."""

    def __init__(self, run: ProberRun, localiser: Localiser) -> None:
        self._run = run
        self._localiser = localiser
        self._changed = threading.Condition()  # Over an RLock: a listener may look at the suspects.
        self._stop = threading.Event()
        self._changes: list[Change] = []
        self._suspects: tuple[Suspect, ...] = ()
        self._listeners: list[Listener] = []
        self._focus = Focus()
        self._horizon_ns = 0
        self.error: BedError | None = None
        # A daemon, so that an interrupted process ends.
        self._thread = threading.Thread(target=self._go, name="prober", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after one last look at what has come in."""
        self._stop.set()
        self._thread.join()

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """Everything accused now."""
        with self._changed:
            return self._suspects

    @property
    def changes(self) -> tuple[Change, ...]:
        """What was said so far."""
        with self._changed:
            return tuple(self._changes)

    @property
    def horizon_ns(self) -> int:
        """Every probe sent before it (CLOCK_REALTIME) is judged."""
        with self._changed:
            return self._horizon_ns

    def listen(self, heard: Listener) -> None:
        """Have ``heard`` called, in this thread's time, with all suspects and each change, those so far first."""
        with self._changed:
            for change in self._changes:
                heard(self._suspects, change)
            self._listeners.append(heard)

    def wait(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition on suspects, changes or the horizon holds. Raises the error that ended the thread."""
        with self._changed:
            found = self._changed.wait_for(lambda: self.error is not None or holds(), timeout_s)
            if self.error is not None:
                raise self.error
            return found

    def _go(self) -> None:
        try:
            while not self._stop.wait(STEP_S):
                self._look()
            self._look()
        except BedError as error:
            self._fail(error)
        except Exception as error:  # A defect of ours must reach the block that waits, not vanish in a thread.
            self._fail(InfrastructureError("the prober failed", found=f"{type(error).__name__}: {error}"))

    def _look(self) -> None:
        rows, horizon = self._run.read()
        if not horizon:
            return
        self._localiser.add(rows, horizon)
        changes = self._localiser.step(now_ns())
        focus = self._localiser.focus()
        if focus != self._focus:
            self._run.focus(focus)
            self._focus = focus
        with self._changed:
            self._suspects = self._localiser.suspects
            self._horizon_ns = horizon
            self._changes += changes
            for change in changes:
                for heard in self._listeners:
                    heard(self._suspects, change)
            self._changed.notify_all()

    def _fail(self, error: BedError) -> None:
        with self._changed:
            self.error = error
            self._changed.notify_all()
