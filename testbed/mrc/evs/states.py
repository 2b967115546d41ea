"""The state machine of an EV: which event leads from which state to which.

GOOD is used. SKIP (marked or trimmed: congestion) is passed over for about one rotation. ASSUMED_BAD (an untrimmed
loss, a timeout, or the receiver's ALWAYS_SKIP: the path failed) comes back only through probes. DENIED is the
controller's word alone. What is not in the table does nothing: a mark on an EV that is out already says nothing new,
and neither does the loss of what was in flight when it was retired.

Source: OCP MRC 1.0, EV states, through tables given by others (see ``wire/tables.yaml``).
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

from testbed.mrc.evs.arrays import Indices, Octets
from testbed.mrc.rows import EV_EVENT, EvCause, EvState

GOOD: Final = int(EvState.GOOD)
SKIP: Final = int(EvState.SKIP)
BAD: Final = int(EvState.ASSUMED_BAD)
DENIED: Final = int(EvState.DENIED)

#: What is seen of an EV, and the states it leads on from; the controller's and the ports' doing are in ``EvSet``.
TRANSITIONS: Final[dict[EvCause, dict[int, int]]] = {
    EvCause.ECN: {GOOD: SKIP},
    EvCause.TRIM: {GOOD: SKIP},
    EvCause.LOSS: {GOOD: BAD, SKIP: BAD},
    EvCause.TIMEOUT: {GOOD: BAD, SKIP: BAD},
    EvCause.ALWAYS_SKIP: {GOOD: BAD, SKIP: BAD},
    EvCause.ROTATION: {SKIP: GOOD},
    EvCause.PROBE: {BAD: GOOD},
}

#: ``ev`` of an event about a whole plane.
WHOLE_PLANE: Final = 0xFFFFFFFF
_NO_SLOT: Final = 0xFF
#: So much of the log is kept for whoever takes it, the newest.
LOG_LENGTH: Final = 4096


class States:
    """The states of ``n`` EVs, and the log of what happened to them.

    ``cells`` and ``column`` are the same bytes, for single look-ups and for whole columns. They have one more entry
    than there are EVs, so that index -1, an empty slot, reads as no state at all.
    """

    def __init__(self, evs: npt.NDArray[np.uint32], planes: Octets, qp: int) -> None:
        self.cells = bytearray(evs.size) + bytes([_NO_SLOT])
        self.column: Octets = np.frombuffer(self.cells, np.uint8)
        self._evs: list[int] = evs.tolist()
        self._planes: list[int] = planes.tolist()
        self._qp = qp
        self._log: deque[tuple[int, int, int, int, int, int, int]] = deque(maxlen=LOG_LENGTH)

    def change(self, index: int, after: int, cause: EvCause, now_ns: int) -> None:
        """Put one EV into a state, and say so."""
        before = self.cells[index]
        self.cells[index] = after
        self._log.append((now_ns, self._qp, self._evs[index], self._planes[index], before, after, cause))

    def note(self, index: int, cause: EvCause, now_ns: int) -> None:
        """Say something of an EV whose state stays what it is."""
        self.change(index, self.cells[index], cause, now_ns)

    def note_plane(self, plane: int, usable: bool, cause: EvCause, now_ns: int) -> None:
        """Say that a plane has become usable, or no longer is."""
        self._log.append((now_ns, self._qp, WHOLE_PLANE, plane, int(not usable), int(usable), cause))

    def usable(self, indices: Indices) -> Indices:
        """Those of ``indices`` that may hold a slot: GOOD, or SKIP, which is GOOD again by itself."""
        return indices[self.column[indices] <= SKIP]

    def take_events(self) -> npt.NDArray[np.void]:
        """Rows of EV_EVENT since the last call, in the order in which they happened; of too many the newest."""
        rows = np.array(list(self._log), EV_EVENT)
        self._log.clear()
        return rows
