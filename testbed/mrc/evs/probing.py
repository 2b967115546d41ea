"""Probes of EVs that are assumed bad: the only way back for them.

One probe of an EV is under way at a time. The first is due at once, the next a probe interval after the last was
asked for, and not before that was answered or given up. Several answers in a row bring the EV back; a probe not
answered in time ends the row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc.evs.arrays import NOTHING, Indices
from testbed.mrc.settings import EvSettings

_NEVER = np.iinfo(np.int64).max


class Probing:
    """The probes of ``n`` EVs."""

    def __init__(self, n: int, settings: EvSettings) -> None:
        self._settings = settings
        self._probed: npt.NDArray[np.bool_] = np.zeros(n, np.bool_)
        self._suspended: npt.NDArray[np.bool_] = np.zeros(n, np.bool_)
        self._due: Indices = np.full(n, _NEVER)
        self._deadline: Indices = np.full(n, _NEVER)
        self._row: Indices = np.zeros(n, np.int64)
        self._next: int | None = _NEVER

    def start(self, index: int, now_ns: int) -> None:
        """An EV is assumed bad from now on."""
        self._probed[index] = True
        self._due[index] = now_ns
        self._deadline[index] = _NEVER
        self._row[index] = 0
        self._next = None

    def stop(self, index: int) -> None:
        """An EV is no longer to be probed."""
        self._probed[index] = False
        self._next = None

    def suspend(self, indices: Indices) -> None:
        """Send no probes of these: what is under way counts neither way, and rows begin anew afterwards."""
        self._suspended[indices] = True
        self._deadline[indices] = _NEVER
        self._row[indices] = 0
        self._next = None

    def resume(self, indices: Indices) -> None:
        """Probe these again, those at once whose time has passed."""
        self._suspended[indices] = False
        self._next = None

    def due(self, now_ns: int) -> Indices:
        """Indices to probe now, marked as asked; those whose answer is overdue have failed."""
        if now_ns < self._when():
            return NOTHING.copy()
        overdue = self._deadline <= now_ns
        self._row[overdue] = 0
        self._deadline[overdue] = _NEVER
        asked = np.flatnonzero(
            self._probed & ~self._suspended & (self._due <= now_ns) & (self._deadline == _NEVER),
        )
        self._deadline[asked] = now_ns + self._settings.probe_timeout_ns
        self._due[asked] = now_ns + self._settings.probe_interval_ns
        self._next = None
        return asked

    def answered(self, index: int, now_ns: int) -> bool:
        """Whether this answer completes the row; one that is late, or that nobody asked for, is no success."""
        deadline = int(self._deadline[index])
        if not self._probed[index] or deadline == _NEVER:
            return False
        self._deadline[index] = _NEVER
        self._next = None
        if now_ns >= deadline:
            self._row[index] = 0
            return False
        self._row[index] += 1
        return int(self._row[index]) >= self._settings.probes_to_restore

    def next_due_ns(self) -> int | None:
        """When a probe is next to be sent or given up; None where none is."""
        when = self._when()
        return None if when == _NEVER else when

    def _when(self) -> int:
        if self._next is None:
            act = np.where(self._deadline != _NEVER, self._deadline, self._due)
            self._next = int(act.min(where=self._probed & ~self._suspended, initial=_NEVER))
        return self._next
