"""Counts of a workload as it runs, from the rows of its packets: each row is looked at once.

The definitions are those of the finished run's figures (RFC 7680, RFC 4737), except that time goes on: a packet is
lost when it has not arrived within the waiting time.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from testbed.samples import ArrivalArray, SampleFlag, SentArray

I64 = npt.NDArray[np.int64]
#: Rows younger than this are left for the next time: a sender writes its row after the packet is on its way. What
#: arrives has twice as long.
HOLD_NS = 50_000_000


class Count(IntEnum):
    """Columns of counts. SENT, RECEIVED (the first arrival of each), LOST, REORDERED, DUPLICATED: packets.

    BYTES: payload that arrived for the first time.
    """

    SENT = 0
    RECEIVED = 1
    LOST = 2
    REORDERED = 3
    DUPLICATED = 4
    BYTES = 5


class Counting:
    """Takes rows in as they come.

    Args:
        planes, flows: how many there are.
        waiting_ns: a packet is lost when it has not arrived so long after it was sent.
        payload: bytes of each packet; None: as its row says, of those placed in memory for the first time.
        by_row: bytes of each packet are what the row of its first arrival says; there is no ``payload`` then.

    Attributes:
        of_plane: shape (planes, 6), of :class:`Count`. What arrived is of the plane it arrived on.
        of_flow: shape (flows, 6).
    """

    def __init__(self, planes: int, flows: int, waiting_ns: int, payload: int | None, *, by_row: bool = False) -> None:
        self.of_plane: I64 = np.zeros((planes, len(Count)), np.int64)
        self.of_flow: I64 = np.zeros((flows, len(Count)), np.int64)
        self._waiting_ns = waiting_ns
        self._payload = payload
        self._by_row = by_row
        #: Of each flow: which packets have come or were given up, and the largest number that came.
        self._seen = [np.zeros(1024, np.bool_) for _ in range(flows)]
        self._largest: I64 = np.full(flows, -1, np.int64)
        self._open: deque[SentArray] = deque()

    def sent(self, rows: SentArray, until_ns: int) -> int:
        """Take in rows sent until this time; returns how many were taken, from the first on."""
        taken = int(np.searchsorted(rows["t_ns"], until_ns - HOLD_NS, side="right")) if len(rows) else 0
        rows = rows[:taken]
        mine = rows[self._of_ours(rows) & ((rows["flags"] & SampleFlag.RETRANSMITTED) == 0)].copy()
        if mine.size:
            self._add(Count.SENT, mine)
            for flow in np.unique(mine["flow"]).tolist():
                self._make_room(flow, int(mine["seq"][mine["flow"] == flow].max()))
            self._open.append(mine)
        return taken

    def arrived(self, rows: ArrivalArray, until_ns: int) -> int:
        """The same for arrivals."""
        late = np.flatnonzero(rows["t_ns"] > until_ns - 2 * HOLD_NS)
        taken = int(late[0]) if late.size else len(rows)
        rows = rows[:taken]
        rows = rows[self._of_ours(rows)]
        if self._payload is None and not self._by_row:
            placed = rows[(rows["flags"] & SampleFlag.PLACED) != 0]
            self._add(Count.BYTES, placed, placed["bytes"].astype(np.int64))
        rows = rows[(rows["flags"] & SampleFlag.RETRANSMITTED) == 0]
        for flow in np.unique(rows["flow"]).tolist():
            self._flow_arrived(flow, rows[rows["flow"] == flow])
        return taken

    def give_up(self, now_ns: int) -> None:
        """Count as lost what has not arrived within the waiting time."""
        end = now_ns - self._waiting_ns - 2 * HOLD_NS
        while self._open:
            rows = self._open.popleft()
            due = rows["t_ns"] <= end
            self._lose(rows[due])
            if not due.all():
                self._open.appendleft(rows[~due])
                return

    def _lose(self, rows: SentArray) -> None:
        for flow in np.unique(rows["flow"]).tolist():
            mine = rows[rows["flow"] == flow]
            lost = mine[~self._seen[flow][mine["seq"].astype(np.int64)]]
            self._seen[flow][lost["seq"].astype(np.int64)] = True
            self._add(Count.LOST, lost)

    def _flow_arrived(self, flow: int, rows: ArrivalArray) -> None:
        known = rows[rows["seq"] < len(self._seen[flow])]
        seq = known["seq"].astype(np.int64)
        first = np.zeros(len(seq), np.bool_)
        first[np.unique(seq, return_index=True)[1]] = True
        first &= ~self._seen[flow][seq]
        self._seen[flow][seq] = True
        self._add(Count.DUPLICATED, known[~first])
        fresh, seq = known[first], seq[first]
        if not seq.size:
            return
        self._add(Count.RECEIVED, fresh)
        if self._by_row:
            self._add(Count.BYTES, fresh, fresh["bytes"].astype(np.int64))
        elif self._payload is not None:
            self._add(Count.BYTES, fresh, np.full(len(fresh), self._payload, np.int64))
        # RFC 4737 §3: reordered is what arrives after a larger sequence number.
        before = np.maximum.accumulate(np.concatenate([self._largest[flow : flow + 1], seq]))
        self._add(Count.REORDERED, fresh[seq < before[:-1]])
        self._largest[flow] = before[-1]

    def _add(self, count: Count, rows: npt.NDArray[np.void], weights: I64 | None = None) -> None:
        if rows.size:
            for table, column in ((self.of_plane, "plane"), (self.of_flow, "flow")):
                found = np.bincount(rows[column], weights, len(table))
                table[:, count] += found.astype(np.int64)

    def _of_ours(self, rows: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        return (rows["flow"] < len(self.of_flow)) & (rows["plane"] < len(self.of_plane))

    def _make_room(self, flow: int, largest: int) -> None:
        seen = self._seen[flow]
        if largest >= len(seen):
            self._seen[flow] = np.zeros(max(2 * len(seen), largest + 1), np.bool_)
            self._seen[flow][: len(seen)] = seen
