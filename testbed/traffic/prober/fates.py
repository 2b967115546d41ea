"""What became of each probe: matched with its arrival, or given up when the waiting time is over."""

from __future__ import annotations

import errno
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from testbed.localise.routes import OUTCOME, OutcomeArray, Status
from testbed.traffic.prober.pressure import Disturbances

#: Probes that can be told apart by their sequence number; at 5,000 probes/s thirteen seconds' worth.
SLOTS = 1 << 16
_Times = npt.NDArray[np.int64]


class _Fate(IntEnum):
    NONE = 0
    UNDER_WAY = 1
    REFUSED = 2
    #: The sender's own queue was full, which is no fault of the fabric.
    CROWDED = 3
    GIVEN_UP = 4


class Fates:
    """The probes of the last seconds. ``ends``: for each loop the index of the host it comes home to."""

    def __init__(self, ends: npt.NDArray[np.int64]) -> None:
        self._ends = ends
        self._t_ns: _Times = np.zeros(SLOTS, np.int64)
        self._loop: npt.NDArray[np.uint32] = np.zeros(SLOTS, np.uint32)
        self._seq: npt.NDArray[np.uint64] = np.zeros(SLOTS, np.uint64)
        self._fate: npt.NDArray[np.uint8] = np.zeros(SLOTS, np.uint8)
        self._next = 0
        self._open = 0

    def numbers(self, count: int) -> npt.NDArray[np.uint64]:
        """The sequence numbers of the next probes."""
        return np.arange(self._next, self._next + count).astype(np.uint64)

    def sent(self, loops: _Times, seq: npt.NDArray[np.uint64], t_ns: _Times, refused: npt.NDArray[np.uint8]) -> None:
        """Note probes handed to the kernel."""
        place = (seq % SLOTS).astype(np.int64)
        self._t_ns[place], self._loop[place], self._seq[place] = t_ns, loops, seq
        kinds = np.where(refused == errno.ENOBUFS, _Fate.CROWDED, _Fate.REFUSED)
        self._fate[place] = np.where(refused == 0, _Fate.UNDER_WAY, kinds)
        self._next += len(seq)

    def arrived(self, host: int, seq: npt.NDArray[np.uint64], t_ns: _Times) -> tuple[OutcomeArray, int]:
        """Outcomes of probes that came to a host, by the kernel's stamps; and how many were meant for another host."""
        place = (seq % SLOTS).astype(np.int64)
        fate = self._fate[place]
        ours = (self._seq[place] == seq) & ((fate == _Fate.UNDER_WAY) | (fate == _Fate.GIVEN_UP))
        home = ours & (self._ends[self._loop[place]] == host)
        place, seq, t_ns, fate = place[home], seq[home], t_ns[home], fate[home]
        status = np.where(fate == _Fate.GIVEN_UP, Status.LATE, Status.ARRIVED)
        rows = self._rows(place, seq, status)
        rows["delay_ns"] = t_ns - self._t_ns[place]
        self._fate[place] = _Fate.NONE
        return rows, int((ours & ~home).sum())

    def give_up(self, sent_until_ns: int, disturbed: Disturbances, waiting_ns: int) -> OutcomeArray:
        """Outcomes of probes sent by then that have not arrived: lost, or unknown where it may be the machine."""
        seq = np.arange(self._open, self._next)
        place = seq % SLOTS
        count = int(np.searchsorted(self._t_ns[place], sent_until_ns, "right"))
        self._open += count
        seq, place = seq[:count], place[:count]
        missing = self._fate[place] != _Fate.NONE
        seq, place = seq[missing].astype(np.uint64), place[missing]
        machine = disturbed.touch(self._t_ns[place], waiting_ns) | (self._fate[place] == _Fate.CROWDED)
        rows = self._rows(place, seq, np.where(machine, Status.UNKNOWN, Status.LOST))
        self._fate[place] = _Fate.GIVEN_UP
        return rows

    def _rows(self, place: _Times, seq: npt.NDArray[np.uint64], status: npt.NDArray[np.int64]) -> OutcomeArray:
        rows = np.zeros(len(place), OUTCOME)
        rows["t_ns"], rows["route"] = self._t_ns[place], self._loop[place]
        rows["seq"], rows["status"] = seq & 0xFFFFFFFF, status
        return rows
