"""Readings of a fabric's counters around a workload, for the ledger."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from testbed.fabric.protocols import Fabric
from testbed.record import CounterReading, Counts, HostTraffic

_SETTLE_S = 0.5


@dataclass(frozen=True)
class Counted:
    """What the counters say of one run.

    Attributes:
        before, after: the fabric's, before the first packet and after the last.
        hosts: what the workload counted at its own sockets.
        smallest: bytes of its smallest packet, the outermost IPv6 header included.
        unknown: why the workload's own counts are not to be relied on; empty where they are.
    """

    before: CounterReading
    after: CounterReading
    hosts: tuple[HostTraffic, ...]
    smallest: int
    unknown: str = ""


def settled_counters(fabric: Fabric, timeout_s: float = _SETTLE_S) -> CounterReading:
    """The fabric's counters once nothing is on its way any more: queues empty, and two readings in a row equal.

    At the deadline the last reading as it is, not ``settled``. Raises InfrastructureError.
    """
    deadline = time.monotonic() + timeout_s
    last = fabric.counters()
    while True:
        reading = fabric.counters()
        if reading.rows == last.rows and not _waiting(reading):
            return replace(reading, settled=True)
        if time.monotonic() > deadline:
            return reading
        last = reading


def _waiting(reading: CounterReading) -> bool:
    """Whether a queue holds packets."""
    return any(row.packets for row in reading.rows if row.counts is Counts.QUEUE and row.counter == "waiting")
