"""The leaf that every part shares: clock stamps, events and figures. Standard library only.

All stamps are CLOCK_REALTIME in nanoseconds, because that is the clock of the kernel's packet
timestamps; a run logs its offset to CLOCK_MONOTONIC at both ends, and a step in between makes
its delays unknown.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


def now_ns() -> int:
    """The current CLOCK_REALTIME in nanoseconds."""
    return time.time_ns()


@dataclass(frozen=True, slots=True)
class ClockReading:
    """CLOCK_REALTIME and CLOCK_MONOTONIC read back to back, in nanoseconds."""

    realtime_ns: int
    monotonic_ns: int

    @classmethod
    def take(cls) -> ClockReading:
        """Read both clocks; the monotonic one twice, so that a preemption in between halves its error."""
        before = time.monotonic_ns()
        realtime = time.time_ns()
        after = time.monotonic_ns()
        return cls(realtime, (before + after) // 2)

    def step_since(self, earlier: ClockReading) -> int:
        """How far CLOCK_REALTIME moved against CLOCK_MONOTONIC since ``earlier``, in nanoseconds."""
        return (self.realtime_ns - earlier.realtime_ns) - (self.monotonic_ns - earlier.monotonic_ns)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the fabric.

    Attributes:
        t_ns: CLOCK_REALTIME at which it is known to have happened by.
        uncertainty_ns: it happened within ``[t_ns - uncertainty_ns, t_ns]``.
        lane: which timeline lane shows it: ``fault``, ``carrier``, ``tables``, ``traffic``.
        subject: node, link or port, in the lab's names.
        what: short verb phrase, for instance ``issued``, ``carrier lost``, ``forwarding``.
        detail: further facts, JSON-serialisable.
    """

    t_ns: int
    lane: str
    subject: str
    what: str
    uncertainty_ns: int = 0
    detail: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def now(cls, lane: str, subject: str, what: str) -> Event:
        """An event that is known to have happened by now."""
        return cls(now_ns(), lane, subject, what)

    @classmethod
    def between(cls, lane: str, subject: str, what: str, before_ns: int, after_ns: int) -> Event:
        """An event that happened between two stamps."""
        return cls(after_ns, lane, subject, what, uncertainty_ns=after_ns - before_ns)


@dataclass(frozen=True, slots=True)
class Figure:
    """One reported number, with everything needed to trust or doubt it.

    Attributes:
        name: the metric's name in ``docs/metrics.md``, for instance ``loss_ratio``.
        value: in ``unit``; None when it could not be measured (then ``note`` says why).
        unit: SI or ``packets``, ``ratio``, ``count``, ``bit/s``.
        definition: the RFC section or the sentence that defines it.
        samples: how many samples it rests on.
        scope: what it describes: ``all``, ``flow h0>h5``, ``plane 3``, ``ev 0x0013``.
        resolution: the smallest difference it could have shown, in ``unit``; None where exact.
        note: waiting time, window or other choice that belongs to the number.
    """

    name: str
    value: float | None
    unit: str
    definition: str
    samples: int
    scope: str = "all"
    resolution: float | None = None
    note: str = ""
