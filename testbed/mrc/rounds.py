"""Whose turn it is to send: queue pairs take turns, each with an equal share of what may go out."""

from __future__ import annotations

from collections import deque

from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import Rows

#: Packets of one turn, at least: fewer would cost more time for each packet than fairness is worth.
_TURN = 16


class Rounds:
    """The queue pairs that have something to send, the next one first."""

    def __init__(self) -> None:
        self._ring: deque[QueuePair] = deque()

    def __len__(self) -> int:
        return len(self._ring)

    def join(self, qp: QueuePair) -> None:
        """A queue pair may have something to send."""
        if not qp.in_ring and qp.connection is not None and qp.connection.requester.pending:
            qp.in_ring = True
            self._ring.append(qp)

    def leave(self, qp: QueuePair) -> None:
        """A queue pair is gone."""
        if qp.in_ring:
            qp.in_ring = False
            self._ring.remove(qp)

    def emit(self, now_ns: int, most: int) -> list[tuple[QueuePair, Rows]]:
        """Up to ``most`` packets: WRITE_OUT rows by queue pair, whose ``path`` is an index of its EV set."""
        ring = self._ring
        turns: list[tuple[QueuePair, Rows]] = []
        idle = 0
        share = max(_TURN, most // len(ring)) if ring else 0
        while most > 0 and idle < len(ring):
            qp = ring.popleft()
            if qp.connection is None:
                qp.in_ring = False
                continue
            rows = qp.connection.requester.emit(now_ns, min(most, share))
            if len(rows):
                turns.append((qp, rows))
                most -= len(rows)
                idle = 0
            else:
                idle += 1
            if qp.connection.requester.pending:
                ring.append(qp)
            else:
                qp.in_ring = False
                idle -= not len(rows)
        return turns
