"""Samples of probes in shared memory, with the agent's counters in the header.

A full buffer keeps its rows and counts what no longer fits: then the loss is unknown.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from testbed.samples import ARRIVAL, SENT, ArrivalArray, SentArray
from testbed.shared_rows import HEADER_BYTES, SharedRows

__all__ = ["HEADER_BYTES", "Counter", "Kind", "SampleFile", "State"]


class Kind(IntEnum):
    """What the rows are."""

    SENT = 1
    ARRIVALS = 2


class State(IntEnum):
    """How far the agent is."""

    NEW = 0
    READY = 1
    RUNNING = 2
    FINISHED = 3


class Counter(IntEnum):
    """Live counters, all u64, in the order they have in the header.

    SENT: packets the kernel took. REFUSED: packets it refused. LATE: offered more than 1 ms after their time.
    BEHIND_NS_MAX: the furthest any packet was behind the schedule.
    SEND_ERROR_NS: the largest possible error of a ``t_ns``: half of the longest call for packets sent alone, nearly
    all of it for the first and last of a batch.
    BLOCKED: times the sender waited for room in its socket. REOFFERED: refused packets that the kernel saw twice
    (sendmmsg tells the errno only for the first packet of a call). RECEIVED: probes of this run.
    FOREIGN: probes of other runs. MALFORMED: not a probe, such as one that was corrupted. OTHER_PORT: arrived on a port
    outside the plan. MISDELIVERED: arrived at another host than it was sent to.
    RECEIVER_DROPS: dropped by the receiver's own ring.
    LAST_T_NS: CLOCK_REALTIME of the newest row.
    CPU_NS: processor time the agent used since it was ready, written when it finishes.
    """

    SENT = 0
    REFUSED = 1
    LATE = 2
    BEHIND_NS_MAX = 3
    SEND_ERROR_NS = 4
    BLOCKED = 5
    REOFFERED = 6
    RECEIVED = 7
    FOREIGN = 8
    MALFORMED = 9
    OTHER_PORT = 10
    RECEIVER_DROPS = 11
    LAST_T_NS = 12
    CPU_NS = 13
    MISDELIVERED = 14


class OfHost(IntEnum):
    """What is counted for each receiving host by itself: of RECEIVER_DROPS, MALFORMED and MISDELIVERED."""

    RING_DROPS = 0
    MALFORMED = 1
    MISDELIVERED = 2


_KINDS: dict[int, np.dtype[np.void]] = {Kind.SENT: SENT, Kind.ARRIVALS: ARRIVAL}


class SampleFile(SharedRows):
    """One memfd of samples. The runner creates it; the agent attaches to the inherited descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, _KINDS, "probe samples")
        #: The counters, for the one process that writes them.
        self.live: memoryview[int] = self.words[: len(Counter)]
        #: What is counted of each host of the agent's plan, a column for each; further hosts are not told apart.
        rest, columns = self.words[len(Counter) :], len(OfHost)
        self.of_host: dict[OfHost, memoryview[int]] = {
            column: rest[column * (len(rest) // columns) : (column + 1) * (len(rest) // columns)] for column in OfHost
        }

    @classmethod
    def create(cls, kind: Kind, capacity: int, name: str = "probe-samples") -> SampleFile:
        """A new file for ``capacity`` rows; memory is used as rows are written. Its descriptor must be inherited."""
        return cls(cls.make(kind, _KINDS[kind], capacity, name))

    @property
    def state(self) -> State:
        """How far the agent is."""
        return State(self.progress)

    @state.setter
    def state(self, state: State) -> None:
        self.progress = state

    def sent(self) -> SentArray:
        """The rows of :data:`testbed.samples.SENT` so far, without a copy."""
        self._check(Kind.SENT)
        return self.published()

    def arrivals(self) -> ArrivalArray:
        """The rows of :data:`testbed.samples.ARRIVAL` so far, without a copy."""
        self._check(Kind.ARRIVALS)
        return self.published()

    def counters(self) -> dict[str, int]:
        """All counters by lower-case name, as they are now; ``overflow``: packets without a row."""
        values = self.live.tolist()
        return {counter.name.lower(): values[counter] for counter in Counter} | {"overflow": self.overflow}

    def _check(self, kind: Kind) -> None:
        if kind != self.kind:
            raise TypeError(f"this file holds {Kind(self.kind).name}, not {kind.name}")
