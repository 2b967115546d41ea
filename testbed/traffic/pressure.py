"""How much of the machine was left during a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = 100


@dataclass(frozen=True)
class Pressure:
    """Totals since boot, or their difference over a run.

    Attributes:
        wall_s: time.
        busy_s: processor time spent on anything, all processors together.
        processors: how many there are.
        stalled_s: time in which some task waited for a processor (PSI ``cpu some``); None where the kernel has no PSI.
    """

    wall_s: float
    busy_s: float
    processors: int
    stalled_s: float | None

    @classmethod
    def read(cls) -> Pressure:
        """The totals now."""
        fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = fields[3] + fields[4]
        processors = sum(line.startswith("cpu") for line in Path("/proc/stat").read_text().splitlines()) - 1
        return cls(time.monotonic(), (sum(fields) - idle) / _TICKS, processors, _stalled_s())

    def __sub__(self, earlier: Pressure) -> Pressure:
        stalled = None
        if self.stalled_s is not None and earlier.stalled_s is not None:
            stalled = self.stalled_s - earlier.stalled_s
        return Pressure(self.wall_s - earlier.wall_s, self.busy_s - earlier.busy_s, self.processors, stalled)

    @property
    def headroom(self) -> float:
        """Share of all processor time that was idle, 0 to 1."""
        whole = self.wall_s * self.processors
        return max(0.0, min(1.0, 1 - self.busy_s / whole)) if whole > 0 else 0.0


def _stalled_s() -> float | None:
    try:
        text = Path("/proc/pressure/cpu").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("some"):
            return int(line.rpartition("total=")[2]) / 1e6
    return None
