"""The leaf that every part shares: clock stamps, events and figures. Standard library only.

All stamps are CLOCK_REALTIME in nanoseconds, because that is the clock of the kernel's packet
timestamps; a run logs its offset to CLOCK_MONOTONIC at both ends, and a step in between makes
its delays unknown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


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
        at_least: the value is only a lower bound, because the run ended before what it measures did.
    """

    name: str
    value: float | None
    unit: str
    definition: str
    samples: int
    scope: str = "all"
    resolution: float | None = None
    note: str = ""
    at_least: bool = False


class Counts(StrEnum):
    """What a counter of a node belongs to."""

    PORT = "port"  #: ``received``, ``sent``, ``not sent``, ``wrong address``, ``carrier losses``
    QUEUE = "queue"  #: of a port: ``full`` (dropped for want of room), ``waiting`` (a level, not a count)
    USID = "usid"  #: ``foreign``: no route knows the packet's next uSID
    IP = "ip"  #: of the whole node, by the names of RFC 4293: ``InReceives``, ``InHdrErrors``, …
    #: Of faults, by port: ``dropped arriving``, ``duplicated leaving``, …; of another rule a name that begins ``drop``.
    RULE = "rule"


class CounterRow(NamedTuple):
    """One counter of a node: ``name`` is the port's, the route's or the rule's, empty for the node as a whole."""

    node: str
    counts: Counts
    name: str
    counter: str
    packets: int


@dataclass(frozen=True, slots=True)
class CounterReading:
    """All counters of a fabric.

    Attributes:
        t_ns: CLOCK_REALTIME by which all had been read.
        rows: in an order that is the same for every reading.
        settled: nothing was on its way: every queue was empty and the reading before it was equal.
    """

    t_ns: int
    rows: tuple[CounterRow, ...]
    settled: bool = False


@dataclass(frozen=True, slots=True)
class HostTraffic:
    """What a workload counted at its own sockets on one host.

    Attributes:
        host: whose.
        sent: packets that its kernel took; None where the process cannot tell any more, because it was killed.
        refused: (plane, or None; errno) → packets that its kernel did not take.
        received: packets taken from the ring, whatever became of them.
        ring_dropped: packets that the ring had no room for.
        unread: packets in the ring when the process ended.
        discarded: why it did not take some of those received for what was sent to it → packets.
    """

    host: str
    sent: int | None = 0
    refused: Mapping[tuple[int | None, int], int] = field(default_factory=dict)
    received: int = 0
    ring_dropped: int = 0
    unread: int = 0
    discarded: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drop:
    """Packets that ended at one place of a fabric.

    Attributes:
        hop: a node, or a port as ``node:port``, in the lab's names.
        cause: why, in words.
        packets: how many.
        node: the node.
        leaving: it happened to packets that leave ``node`` by one of these ports; empty: by any, or by none.
        arriving: it happened to packets that arrive at ``node`` by one of these ports; empty: by any.
    """

    hop: str
    cause: str
    packets: int
    node: str
    leaving: frozenset[str] = frozenset()
    arriving: frozenset[str] = frozenset()
