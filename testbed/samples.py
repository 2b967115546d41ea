"""Packet samples as numpy columns: what workloads hand over and measures read.

One row per packet offered, one per arrival. Rows are 32 bytes, so that ten million of them are 320 MB
and map straight from the shared memory a workload writes them to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import numpy.typing as npt


class SampleFlag(IntFlag):
    """What else is known of a packet: sent again, marked on its way (ECN), placed in memory for the first time."""

    RETRANSMITTED = 1
    MARKED = 2
    PLACED = 4


#: A packet offered to the fabric. ``t_ns``: CLOCK_REALTIME when it was handed to the kernel; ``status``: 0,
#: or the errno with which the sender's own kernel refused it (then it is lost at the sending port).
#: ``flags``: of :class:`SampleFlag`. ``bytes``: payload; 0 where the workload has one size for all.
SENT = np.dtype(
    [
        ("seq", "<u8"),
        ("t_ns", "<i8"),
        ("flow", "<u4"),
        ("ev", "<u4"),
        ("plane", "u1"),
        ("status", "u1"),
        ("flags", "u1"),
        ("pad", "u1"),
        ("bytes", "<u4"),
    ]
)

#: A packet that arrived. ``t_ns``: the kernel's CLOCK_REALTIME receive stamp; ``plane``: the plane of the
#: port it arrived on; ``ev``: the entropy value as carried in the packet. ``flags`` and ``bytes`` as above.
ARRIVAL = np.dtype(
    [
        ("seq", "<u8"),
        ("t_ns", "<i8"),
        ("flow", "<u4"),
        ("ev", "<u4"),
        ("plane", "u1"),
        ("flags", "u1"),
        ("pad", "<u2"),
        ("bytes", "<u4"),
    ]
)

SentArray = npt.NDArray[np.void]
ArrivalArray = npt.NDArray[np.void]


@dataclass(frozen=True)
class Samples:
    """Everything one workload saw.

    Attributes:
        flows: names by flow number, ``("h0>h5", …)``.
        sent: array of :data:`SENT`, in the order offered. ``seq`` counts per flow from 0, across its EVs.
        arrivals: array of :data:`ARRIVAL`, in the order each receiver saw them (one receiver per destination
            host, so the order within a flow is the order of arrival).
        waiting_time_ns: how long after the last packet the receivers still listened.
        send_error_ns: the largest error of ``sent["t_ns"]``, as long as the longest call that handed packets over.
        receiver_drops: packets the receivers' own sockets dropped; above 0 the loss figures are unknown.
    """

    flows: tuple[str, ...]
    sent: SentArray
    arrivals: ArrivalArray
    waiting_time_ns: int
    send_error_ns: int = 0
    receiver_drops: int = 0

    def __post_init__(self) -> None:
        if self.sent.dtype != SENT or self.arrivals.dtype != ARRIVAL:
            raise TypeError(f"samples are columns of SENT and ARRIVAL, not {self.sent.dtype} and {self.arrivals.dtype}")


@dataclass(frozen=True)
class FlowMessages:
    """What became of one flow's messages.

    Attributes:
        name: the flow, ``h0>h5``.
        completed: messages acknowledged.
        failed: messages that ended otherwise.
        mismatches: messages that arrived wrong.
        times_ns: shape (completed,), from posting to completion.
    """

    name: str
    completed: int
    failed: int
    mismatches: int
    times_ns: npt.NDArray[np.int64]
