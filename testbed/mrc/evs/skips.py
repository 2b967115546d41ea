"""EVs in SKIP, and when their turn comes again."""

from __future__ import annotations

from testbed.mrc.evs.arrays import Indices


class Skips:
    """The EVs that are passed over, oldest first.

    Time is counted in packets taken. An EV is due one rotation after it was marked, and never together with another:
    so at most one comes back for each packet sent.
    """

    def __init__(self) -> None:
        self._due: dict[int, int] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._due)

    def add(self, index: int, taken: int, rotation: int) -> None:
        """An EV was marked when ``taken`` packets had been taken, and a rotation is so many packets."""
        self._last = max(taken + rotation, self._last + 1)
        self._due[index] = self._last

    def drop(self, index: int) -> None:
        """An EV is no longer in SKIP."""
        self._due.pop(index, None)

    def due(self, taken: int) -> list[int]:
        """The EVs due by now, oldest first."""
        return [index for index, due in self._due.items() if due <= taken]

    def last_due_before(self, taken: int) -> int | None:
        """When the last EV is due that is due before that; None where none is."""
        return max((due for due in self._due.values() if due < taken), default=None)

    def oldest_of(self, indices: Indices) -> int | None:
        """Which of these was marked first; None where none is in SKIP."""
        return min((index for index in indices.tolist() if index in self._due), key=self._due.__getitem__, default=None)
