"""The active set: a row of slots for each plane, all rows equally wide, each slot holding an EV of its plane.

Rows stay full as long as their plane has one EV that is not out, whatever else fails there: a plane with fewer EVs
than slots has each of them in several slots, their counts differing by one at most. Which EV takes a slot is random.
"""

from __future__ import annotations

import numpy as np

from testbed.mrc.evs.arrays import Indices, Octets, pick
from testbed.mrc.evs.states import States

EMPTY = -1


class Slots:
    """Slots of one EV set.

    Attributes:
        table: (rows, width) of indices into the EVs, EMPTY where a plane has none to offer; a row is full or empty.
        held: (n,), how many slots hold each EV.
    """

    def __init__(
        self, rows: Indices, members: list[Indices], width: int, states: States, rng: np.random.Generator
    ) -> None:
        self.table: Indices = np.full((len(members), width), EMPTY, np.int64)
        self.held: Indices = np.zeros(rows.size, np.int64)
        self._row_of: list[int] = rows.tolist()
        self._members = members
        self._states = states
        self._rng = rng

    def fill(self, row: int) -> None:
        """Fill an empty row at random, with EVs in SKIP only where GOOD ones do not suffice."""
        usable = self._rng.permutation(self._states.usable(self._members[row]))
        if usable.size:
            width = self.table.shape[1]
            first = usable[np.argsort(self._states.column[usable], kind="stable")][:width]
            self.table[row] = np.resize(first, width)
            self._count(row)

    def clear(self, row: int) -> None:
        """Empty a row."""
        self.table[row] = EMPTY
        self._count(row)

    def replace(self, index: int) -> list[int]:
        """Hand the slots of an EV that is out to others of its plane.

        The order of choice: EVs of the backup set, of these first the GOOD ones; then those in the fewest slots.

        Returns:
            The EVs that came from the backup set.
        """
        row = self._row_of[index]
        joined = []
        self.held[index] = 0
        for slot in np.flatnonzero(self.table[row] == index).tolist():
            usable = self._states.usable(self._members[row])
            successor = EMPTY
            if usable.size:
                cost = 2 * self.held[usable] + self._states.column[usable]
                successor = pick(usable[cost == cost.min()], self._rng)
                if not self.held[successor]:
                    joined.append(successor)
                self.held[successor] += 1
            self.table[row, slot] = successor
        return joined

    def admit(self, index: int) -> None:
        """An EV is back: it gets its share of an empty row or of repeated slots; else it is in the backup set."""
        row = self._row_of[index]
        if self.table[row, 0] == EMPTY:
            self.fill(row)
            return
        members = self._members[row]
        while True:
            most = int(members[self.held[members].argmax()])
            if self.held[most] - self.held[index] < 2:
                return
            slot = pick(np.flatnonzero(self.table[row] == most), self._rng)
            self.table[row, slot] = index
            self.held[most] -= 1
            self.held[index] += 1

    def has_backup(self, index: int) -> bool:
        """Whether an EV outside the active set could take over from this one."""
        usable = self._states.usable(self._members[self._row_of[index]])
        return bool((self.held[usable] == 0).any())

    def active(self, worst: int) -> Indices:
        """EVs that hold a slot and whose state is ``worst`` or better, each once."""
        column: Octets = self._states.column[:-1]
        return np.flatnonzero((self.held > 0) & (column <= worst))

    def filled(self) -> int:
        """Slots that hold an EV: the packets of one rotation."""
        return int(np.count_nonzero(self.table[:, 0] != EMPTY)) * int(self.table.shape[1])

    def _count(self, row: int) -> None:
        members = self._members[row]
        self.held[members] = np.bincount(self.table[row][self.table[row] != EMPTY], minlength=self.held.size)[members]
