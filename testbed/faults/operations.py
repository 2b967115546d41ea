"""How a fault goes from injection to heal, told as events: a thing held, a thing that flaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from testbed.fabric.conditions import Condition, Imposed
from testbed.fabric.protocols import Fabric
from testbed.lab import Port
from testbed.record import Event

Record = Callable[[Event], None]
Wait = Callable[[float], bool]

#: Performs a fault from injection to heal. It reports events to the first argument, and waits through the second,
#: which returns True once the fault is to be healed early.
Operation = Callable[[Record, Wait], None]

_LONG_S = 3600.0


class Holding:
    """Conditions held on a fabric, for as long as the scope lasts or on and off; what their rules count.

    Args:
        fabric: where.
        what: what a person calls the fault.
        conditions: what holds.
        subject: what events are about.
        lane: the timeline's lane that shows them.
        hits, passes: ``what`` of the events at which the conditions are in force, and lifted.
    """

    def __init__(
        self,
        fabric: Fabric,
        what: str,
        conditions: Sequence[Condition],
        *,
        subject: str,
        lane: str,
        hits: str,
        passes: str,
    ) -> None:
        self._fabric = fabric
        self._what = what
        self._conditions = conditions
        self._subject = subject
        self._lane = lane
        self._hits = hits
        self._passes = passes
        self._imposed: Imposed | None = None

    def __call__(self, record: Record, wait: Wait) -> None:
        """Hold the conditions until the fault is to heal."""
        self._impose(record)
        try:
            while not wait(_LONG_S):
                pass
        finally:
            self._lift(record)

    def once(self, seconds: float) -> Operation:
        """Hold the conditions for a time, then no more."""

        def operation(record: Record, wait: Wait) -> None:
            self._impose(record)
            try:
                wait(seconds)
            finally:
                self._lift(record)

        return operation

    def flapping(self, on_s: float, off_s: float, count: int | None) -> Operation:
        """Hold the conditions on and off, so often or until the fault is to heal."""

        def operation(record: Record, wait: Wait) -> None:
            done = 0
            while count is None or done < count:
                self.once(on_s)(record, wait)
                done += 1
                if wait(off_s if count is None or done < count else 0.0):
                    return

        return operation

    def counted(self) -> Mapping[Port, int]:
        """Port → packets that the rules have acted on there."""
        return {} if self._imposed is None else self._imposed.counted()

    def _impose(self, record: Record) -> None:
        self._imposed = self._fabric.impose(self._what, self._conditions)
        stamps = list(self._imposed.stamps.values())
        record(Event.between(self._lane, self._subject, self._hits, stamps[0][0], stamps[-1][1]))

    def _lift(self, record: Record) -> None:
        assert self._imposed is not None
        record(Event.between(self._lane, self._subject, self._passes, *self._imposed.lift()))
