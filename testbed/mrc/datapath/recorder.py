"""Samples of WRITE packets: a row of SENT for each that was offered, of ARRIVAL for each that came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc import psn
from testbed.mrc.rows import Ecn, Flag, Rows
from testbed.samples import ARRIVAL, SENT, ArrivalArray, SampleFlag, SentArray


class _Sequence:
    """For each queue pair its flow, and how many packets have gone by so far: PSNs unwrapped, counted from 0."""

    def __init__(self) -> None:
        self._first: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._near: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._flow: npt.NDArray[np.uint32] = np.zeros(0, np.uint32)

    def start(self, qp: int, flow: int, first_psn: int) -> None:
        if qp >= len(self._first):
            more = qp + 1 - len(self._first)
            self._first = np.concatenate([self._first, np.zeros(more, np.int64)])
            self._near = np.concatenate([self._near, np.zeros(more, np.int64)])
            self._flow = np.concatenate([self._flow, np.zeros(more, np.uint32)])
        self._first[qp] = self._near[qp] = first_psn
        self._flow[qp] = flow

    def fill(self, rows: npt.NDArray[np.void], packets: Rows) -> None:
        """``seq`` and ``flow`` of samples."""
        qp = packets["qp"]
        near = self._near[qp]
        unwrapped = near + psn.distance(packets["psn"], near & psn.MASK)
        # Of several packets of one queue pair the last counts: within a batch they are never half of all PSNs apart.
        self._near[qp] = unwrapped
        rows["seq"] = unwrapped - self._first[qp]
        rows["flow"] = self._flow[qp]


class Recorder:
    """Makes samples of the packets of all queue pairs of a NIC."""

    def __init__(self, evs: npt.NDArray[np.uint32], planes: npt.NDArray[np.uint8]) -> None:
        """``evs``, ``planes``: of each row of the path table."""
        self._evs, self._planes = evs, planes
        self._sent, self._received = _Sequence(), _Sequence()

    def sends(self, qp: int, flow: int, first_psn: int) -> None:
        """Packets that this queue pair sends are of ``flow``, and count from ``first_psn``."""
        self._sent.start(qp, flow, first_psn)

    def receives(self, qp: int, flow: int, first_psn: int) -> None:
        """Packets that this queue pair receives are of ``flow``, and count from ``first_psn``."""
        self._received.start(qp, flow, first_psn)

    def sent(self, writes: Rows) -> SentArray:
        """Rows of SENT for WRITE_OUT; ``t_ns`` and ``status`` are the sender's to fill in."""
        rows = np.zeros(len(writes), SENT)
        self._sent.fill(rows, writes)
        path = writes["path"]
        rows["ev"] = self._evs[path]
        rows["plane"] = self._planes[path]
        rows["bytes"] = writes["length"]
        rows["flags"] = ((writes["flags"] & Flag.RTX) != 0) * np.uint8(SampleFlag.RETRANSMITTED)
        return rows

    def arrived(self, writes: Rows, placed: npt.NDArray[np.bool_]) -> ArrivalArray:
        """Rows of ARRIVAL for WRITE_IN, of which ``placed`` were copied to memory; trimmed ones have not arrived."""
        if writes["trimmed"].any():
            whole = writes["trimmed"] == 0
            writes, placed = writes[whole], placed[whole]
        rows = np.zeros(len(writes), ARRIVAL)
        self._received.fill(rows, writes)
        for name in ("t_ns", "ev", "plane"):
            rows[name] = writes[name]
        rows["bytes"] = writes["length"]
        flags = placed * np.uint8(SampleFlag.PLACED)
        flags |= (writes["ecn"] == Ecn.CE) * np.uint8(SampleFlag.MARKED)
        flags |= ((writes["flags"] & Flag.RTX) != 0) * np.uint8(SampleFlag.RETRANSMITTED)
        rows["flags"] = flags
        return rows
