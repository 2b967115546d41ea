"""A schedule played on a fabric: faults injected and healed when it says, all of them healed in the end."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from testbed.errors import BedError, InfrastructureError, UsageError
from testbed.faults.schedule import Planned, Schedule
from testbed.faults.scope import FaultScope
from testbed.faults.spec import FaultSpec

#: A heal that takes so long is told by its own scope before.
_END_TIMEOUT_S = 120.0


class Playing:
    """One schedule under way. Enter it to begin; leave it, and what is in force is healed, the newest first.

    Args:
        schedule: what is to happen.
        make: the scope of a fault, not yet entered. Raises UnsupportedError for one the fabric cannot do.

    Attributes:
        schedule: as given.
    """

    def __init__(self, schedule: Schedule, make: Callable[[FaultSpec], FaultScope]) -> None:
        self.schedule = schedule
        # All made before the first is injected: what cannot be is refused while nothing is changed.
        self._scopes = [make(event.spec) for event in schedule.events]
        self._entered: list[FaultScope] = []
        self._errors: list[BedError] = []
        self._ending = threading.Event()
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.began_ns: int | None = None

    @property
    def faults(self) -> tuple[FaultScope, ...]:
        """Those injected so far, in that order."""
        return tuple(self._entered)

    def wait_injected(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until so many have been injected. Raises InfrastructureError on the deadline."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._entered) >= count or self._over.is_set(), timeout_s):
                raise InfrastructureError(
                    f"{count} faults were not injected within {timeout_s:g} s", found=str(len(self._entered))
                )
        self._raise()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the schedule has been played to its end.

        Raises InfrastructureError on the deadline; by default the schedule's length and two minutes.
        """
        limit_s = self.schedule.length_s + _END_TIMEOUT_S if timeout_s is None else timeout_s
        if not self._over.wait(limit_s):
            raise InfrastructureError(
                "the schedule is not over",
                where=self.schedule.where,
                found=f"{len(self._entered)} of {len(self._scopes)} faults after {limit_s:g} s",
            )
        self._raise()

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError("a schedule is played once", expected="faults.play(...) again for another time")
        self._thread = threading.Thread(target=self._play, name="schedule", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        assert self._thread is not None
        self._thread.join(_END_TIMEOUT_S)
        if self._thread.is_alive():
            self._errors.append(InfrastructureError("a schedule's faults are not healed after two minutes"))
        # As with a single fault: that it did not heal must not hide why the block failed.
        if error is None:
            self._raise()

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]

    def _play(self) -> None:
        self.began_ns = time.time_ns()
        began = time.monotonic()
        # (when, whether it starts, running number, what): of one moment, heals come before injections.
        due: list[tuple[float, int, int, Planned]] = []
        for number, event in enumerate(self.schedule.events):
            heapq.heappush(due, (event.start_s, 1, number, event))
        going: dict[int, FaultScope] = {}
        try:
            while due:
                at, starts, number, event = heapq.heappop(due)
                if self._ending.wait(max(0.0, began + at - time.monotonic())):
                    return
                if not starts:
                    self._leave(going.pop(number))
                elif at < self.schedule.length_s and self._enter(self._scopes[number]):
                    going[number] = self._scopes[number]
                    until = min(event.end_s, self.schedule.length_s)
                    heapq.heappush(due, (until, 0, number, event))
            self._ending.wait(max(0.0, began + self.schedule.length_s - time.monotonic()))
        finally:
            for number in sorted(going, reverse=True):
                self._leave(going[number])
            with self._changed:
                self._over.set()
                self._changed.notify_all()

    def _enter(self, scope: FaultScope) -> bool:
        try:
            scope.__enter__()
        except BedError as error:
            self._errors.append(error)
            return False
        with self._changed:
            self._entered.append(scope)
            self._changed.notify_all()
        return True

    def _leave(self, scope: FaultScope) -> None:
        try:
            scope.__exit__(None, None, None)
        except BedError as error:
            self._errors.append(error)
