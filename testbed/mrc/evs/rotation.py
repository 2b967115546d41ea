"""The order in which packets use the slots: planes in turn, and within a plane its slots in turn.

A slot whose EV is not GOOD is passed over, and its turn falls to the next slot of the same plane, so that planes keep
equal shares. A plane without any GOOD EV in its slots is left out, and the others share its turn.
"""

from __future__ import annotations

import numpy as np

from testbed.mrc.evs.arrays import NOTHING, Indices, Octets
from testbed.mrc.evs.states import GOOD


def _rotations(n: int) -> Indices:
    """(n + 1, n): row i counts from i once around; row n is row 0 again."""
    rotations: Indices = (np.arange(n + 1)[:, None] + np.arange(n)) % n
    return rotations


class Rotation:
    """Where a queue pair stands in its rotation.

    It begins with the first slot of the first row: which EV that is, is random already, by the order of the rows and
    by what fills them. The turns are laid out once for as long as nothing changes; a change lays them out anew from
    where they stood.
    """

    def __init__(self, table: Indices, states: Octets) -> None:
        rows, width = table.shape
        self._table = table
        self._states = states
        self._rows_from = _rotations(rows)
        self._slots_from = _rotations(width)
        # Where to go on: the slot of each row, and the row.
        self._position: Indices = np.zeros(rows, np.int64)
        self._row = 0
        self._numbers: Indices = np.arange(256)
        self._stale = True
        # The turns as laid out: planes that have a GOOD EV, first in turn first, and how many slots of each count.
        # EVs and slots of one plane lie together, those of the next behind them.
        self._turn = 0
        self._live: Indices = NOTHING
        self._lengths: Indices = NOTHING
        self._offsets: Indices = NOTHING
        self._evs: Indices = NOTHING
        self._slots: Indices = NOTHING
        # One whole rotation, planes interleaved; only where all planes have equally many.
        self._whole: Indices | None = None

    def changed(self) -> None:
        """A state or a slot has changed."""
        self._stale = True

    def take(self, count: int) -> Indices:
        """The EVs of the next ``count`` turns; none where no plane has any."""
        if self._stale:
            self._settle()
            self._lay()
        planes = self._live.size
        if not planes or count <= 0:
            return NOTHING.copy()
        turn = self._turn
        self._turn += count
        if self._whole is not None:
            turn %= self._whole.size
            if turn + count <= self._whole.size:
                return self._whole[turn : turn + count].copy()
        if count > self._numbers.size:
            self._numbers = np.arange(2 * count)
        turns = self._numbers[:count] + turn
        if self._whole is not None:
            return self._whole.take(turns, mode="wrap")
        rounds, plane = np.divmod(turns, planes)
        drawn: Indices = self._evs[self._offsets[plane] + rounds % self._lengths[plane]]
        return drawn

    def _settle(self) -> None:
        """Note the slot of each plane, and the plane, at which the turns laid out so far have arrived."""
        turn, planes = self._turn, self._live.size
        if not turn:
            return
        used = min(turn, planes)
        last_round = (turn - 1 - self._numbers[:used]) // planes
        last = self._slots[self._offsets[:used] + last_round % self._lengths[:used]]
        self._position[self._live[:used]] = last + 1
        self._row = int(self._live[turn % planes])

    def _lay(self) -> None:
        """Lay the turns out by the slots and states of now: the GOOD slots of each plane, from its position on."""
        rows = self._rows_from[self._row]
        slots = self._slots_from[self._position[rows]]
        evs = self._table[rows[:, None], slots]
        good = self._states[evs] == GOOD
        lengths = np.add.reduce(good, 1)
        counts = lengths.tolist()
        if not all(counts):
            rows, lengths = rows[lengths > 0], lengths[lengths > 0]
        self._turn = 0
        self._stale = False
        self._live, self._lengths = rows, lengths
        self._offsets = np.add.accumulate(lengths) - lengths
        self._evs, self._slots = evs[good], slots[good]
        even = len(set(counts) - {0}) == 1
        self._whole = self._evs.reshape(rows.size, -1).T.ravel() if even else None
