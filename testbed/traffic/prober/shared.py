"""Outcomes of probes in shared memory, without an end, and the agent's counters in its header."""

from __future__ import annotations

from enum import IntEnum

from testbed.localise.routes import OUTCOME
from testbed.shared_rows import RowRing

_KIND = 1
#: Twenty seconds at 5,000 probes/s: how long a reader may be kept from running.
CAPACITY = 100_000


class Count(IntEnum):
    """What the agent counts, all u64, in the order they have in the header.

    SENT: probes offered to the kernel. REFUSED: those it refused, which count as lost. RECEIVED: that came within the
    waiting time. LOST, UNKNOWN, LATE: as :class:`testbed.localise.routes.Status`. MISLED: came to another host than
    they were sent to; they count as lost. FOREIGN: not a probe of this run. RING_DROPS: dropped by the agent's rings.
    BACKLOG_DROPS: dropped by the kernel's queues per processor, whoever's packets they were. BEHIND_NS_MAX: the
    furthest a turn was behind its time. HORIZON_NS: every probe sent before it has its outcome in the ring
    (CLOCK_REALTIME). CPU_NS: processor time used since it was ready. FOCUSED: probes sent to tell suspects apart.
    """

    SENT = 0
    REFUSED = 1
    RECEIVED = 2
    LOST = 3
    UNKNOWN = 4
    LATE = 5
    MISLED = 6
    FOREIGN = 7
    RING_DROPS = 8
    BACKLOG_DROPS = 9
    BEHIND_NS_MAX = 10
    HORIZON_NS = 11
    CPU_NS = 12
    FOCUSED = 13


class OutcomeRing(RowRing):
    """One memfd of outcomes. The runner creates it; the agent attaches to the inherited descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, {_KIND: OUTCOME}, "outcomes of probes")
        #: The counters, for the one process that writes them.
        self.live: memoryview[int] = self.words[: len(Count)]

    @classmethod
    def create(cls, capacity: int = CAPACITY) -> OutcomeRing:
        """A new ring. Its descriptor must be inherited."""
        return cls(cls.make(_KIND, OUTCOME, capacity, "prober-outcomes"))

    def counters(self) -> dict[str, int]:
        """All counters by lower-case name, as they are now."""
        values = self.live.tolist()
        return {count.name.lower(): values[count] for count in Count}
