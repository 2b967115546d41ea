"""The newest times of an endless stream, in memory that never grows."""

from __future__ import annotations

import numpy as np

#: Of each flow so many message times are kept, and as many round times: a workload may run for days.
TIMES_KEPT = 1 << 16


class Newest:
    """The newest 65,536 of what is appended; int64."""

    def __init__(self) -> None:
        # Written, so that the kernel gives the memory now.
        self._kept = np.full(TIMES_KEPT, -1, np.int64)
        self._count = 0

    def append(self, value: int) -> None:
        """One more; the oldest makes room for it."""
        self._kept[self._count % TIMES_KEPT] = value
        self._count += 1

    def to_list(self) -> list[int]:
        """All of them, the oldest first."""
        if self._count <= TIMES_KEPT:
            return list(map(int, self._kept[: self._count]))
        return list(map(int, np.roll(self._kept, -(self._count % TIMES_KEPT))))
