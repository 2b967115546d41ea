"""Join what was sent with what arrived: the base of every figure that rests on packets.

Each arrival is exactly one of: the first on time of its packet, a duplicate on time, late (after the
waiting time), or foreign (nobody sent it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.errors import InfrastructureError
from testbed.measure.arrays import I64, U64, Bool, grouping, starts_of
from testbed.samples import ArrivalArray, Samples, SentArray


@dataclass(frozen=True)
class Matched:
    """Samples with every arrival joined to its packet.

    Packets are numbered in packet order: by flow, then by sequence number. All columns below with
    ``n`` rows are in that order; those with ``r`` rows are grouped by flow, then in the order of arrival.

    Attributes:
        samples: what was joined.
        waiting_time_ns: an arrival later than this after its own sending is late, and its packet lost.
        flow_starts: shape (flows + 1,), where each flow's packets start.
        seq: shape (n,).
        t_sent: shape (n,), ns.
        ev: shape (n,), the entropy value the packet was sent on.
        plane: shape (n,), the plane it was sent on.
        refused: shape (n,), True where the sender's own kernel refused it.
        lost: shape (n,), True where no arrival was on time.
        t_arrived: shape (n,), ns; 0 where lost.
        received: shape (r,), the packet of each first arrival.
        received_plane: shape (r,), the plane of the port it arrived on.
        duplicate: the packet of each second and later arrival that was on time.
        late: the packet of each late arrival.
        foreign_flow: the flow number of each arrival that nobody sent (it may name no known flow).
    """

    samples: Samples
    waiting_time_ns: int
    flow_starts: I64
    seq: U64
    t_sent: I64
    ev: npt.NDArray[np.uint32]
    plane: npt.NDArray[np.uint8]
    refused: Bool
    lost: Bool
    t_arrived: I64
    received: I64
    received_plane: npt.NDArray[np.uint8]
    duplicate: I64
    late: I64
    foreign_flow: npt.NDArray[np.uint32]

    def delays(self) -> I64:
        """One-way delay of each first arrival in ns, shape (r,), in the order of ``received``."""
        return self.t_arrived[self.received] - self.t_sent[self.received]


def match(samples: Samples, waiting_time_ns: int | None = None) -> Matched:
    """Join arrivals to the packets they are of, by flow and sequence number.

    Args:
        samples: what a workload saw.
        waiting_time_ns: RFC 7680's loss threshold; by default as long as the receivers surely listened.

    Raises:
        InfrastructureError: a packet of an unknown flow, or one sequence number sent twice in a flow.
    """
    waiting = samples.waiting_time_ns if waiting_time_ns is None else waiting_time_ns
    order, flow_starts = _packet_order(samples)
    sent = samples.sent
    seq = _column(sent, "seq", order)
    t_sent = _column(sent, "t_ns", order)
    refused = _column(sent, "status", order) != 0

    arrivals = samples.arrivals
    by_flow = grouping(arrivals["flow"])
    arrived_flow = _column(arrivals, "flow", by_flow)
    arrived_at = _column(arrivals, "t_ns", by_flow)
    packet = _locate(seq, flow_starts, arrived_flow, _column(arrivals, "seq", by_flow))
    # A packet the kernel refused never left; an arrival with its number is somebody else's.
    known = packet >= 0
    known[known] = ~refused[packet[known]]
    foreign_flow = arrived_flow[~known]

    rows = np.flatnonzero(known)
    on_time = arrived_at[rows] - t_sent[packet[rows]] <= waiting
    late = packet[rows[~on_time]]
    rows = rows[on_time]
    candidates = packet[rows]
    first_row = np.full(seq.size, -1, dtype=np.int64)
    # Assigned backwards, so that of several arrivals of a packet the first one stays.
    first_row[candidates[::-1]] = rows[::-1]
    is_first = first_row[candidates] == rows
    lost = first_row < 0
    duplicate = candidates[~is_first]
    received, rows = candidates[is_first], rows[is_first]
    t_arrived = np.zeros(seq.size, dtype=np.int64)
    t_arrived[received] = arrived_at[rows]
    return Matched(
        samples=samples,
        waiting_time_ns=waiting,
        flow_starts=flow_starts,
        seq=seq,
        t_sent=t_sent,
        ev=_column(sent, "ev", order),
        plane=_column(sent, "plane", order),
        refused=refused,
        lost=lost,
        t_arrived=t_arrived,
        received=received,
        received_plane=arrivals["plane"][rows if by_flow is None else by_flow[rows]],
        duplicate=duplicate,
        late=late,
        foreign_flow=foreign_flow,
    )


def _column(rows: SentArray | ArrivalArray, name: str, order: I64 | None) -> npt.NDArray[Any]:
    """One column, contiguous, in the given order."""
    column = rows[name]
    return np.ascontiguousarray(column) if order is None else column[order]


def _packet_order(samples: Samples) -> tuple[I64 | None, I64]:
    """The permutation into packet order (None: already there) and the start of each flow."""
    flow, flows = samples.sent["flow"], len(samples.flows)
    if flow.size and int(flow.max()) >= flows:
        raise InfrastructureError(
            "the samples hold a packet of a flow without a name",
            found=f"flow number {int(flow.max())}",
            expected=f"flow numbers below {flows}",
            remedy="the workload that wrote these samples must name all its flows",
        )
    starts = starts_of(flow, flows)
    order = grouping(flow)
    seq = _column(samples.sent, "seq", order)
    if _ascending(seq, starts):
        return order, starts
    order = np.lexsort((samples.sent["seq"], flow))
    seq = samples.sent["seq"][order]
    if not _ascending(seq, starts):
        at = np.flatnonzero(seq[1:] == seq[:-1])
        twice = next(int(row) for row in at if row + 1 not in starts)
        raise InfrastructureError(
            "a sequence number was sent twice in one flow",
            where=f"flow {samples.flows[int(flow[order[twice]])]}",
            found=f"sequence number {int(seq[twice])} twice",
            expected="sequence numbers that never repeat; unwrap 32-bit ones first",
            remedy="see testbed.measure.sequence.unwrap",
        )
    return order, starts


def _ascending(seq: U64, starts: I64) -> bool:
    """Whether sequence numbers strictly rise within each flow."""
    if seq.size < 2:
        return True
    rising = seq[1:] > seq[:-1]
    rising[starts[(starts > 0) & (starts < seq.size)] - 1] = True
    return bool(rising.all())


def _locate(seq: U64, starts: I64, arrived_flow: npt.NDArray[np.uint32], arrived_seq: U64) -> I64:
    """The packet each arrival is of, -1 for none. Arrivals are grouped by flow."""
    flows = starts.size - 1
    packet = np.full(arrived_flow.size, -1, dtype=np.int64)
    cuts = np.searchsorted(arrived_flow, np.arange(flows + 1))
    for flow in range(flows):
        mine, theirs = slice(starts[flow], starts[flow + 1]), slice(cuts[flow], cuts[flow + 1])
        own, wanted = seq[mine], arrived_seq[theirs]
        if not own.size or not wanted.size:
            continue
        if int(own[-1]) - int(own[0]) == own.size - 1:
            # Without gaps the offset from the first number is the row; below it, it wraps to a huge one.
            offset = wanted - own[0]
            found = offset < np.uint64(own.size)
        else:
            offset = np.searchsorted(own, wanted).astype(np.uint64)
            found = offset < np.uint64(own.size)
            found[found] = own[offset[found]] == wanted[found]
        packet[theirs] = np.where(found, offset.astype(np.int64) + starts[flow], -1)
    return packet
