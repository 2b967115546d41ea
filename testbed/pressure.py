"""How much of the machine was left during a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Pressure:
    """How starved of processor time a run was; None where the kernel does not say.

    Attributes:
        elapsed_s: length of the run.
        cpu_some_s: time in which some task waited for a processor (PSI).
        cpu_full_s: time in which all tasks waited for one (PSI).
        cpu_headroom: share of all processor time left idle, 0 to 1.
        cpu_paused_s: time in which processors stood still (:mod:`testbed.pauses`), added up over them; None where
            nobody watched.
    """

    elapsed_s: float
    cpu_some_s: float | None
    cpu_full_s: float | None
    cpu_headroom: float | None
    cpu_paused_s: float | None = None


@dataclass(frozen=True, slots=True)
class PressureReading:
    """The kernel's totals since boot; None where it does not keep them.

    Attributes:
        t_ns: CLOCK_MONOTONIC.
        some_us, full_us: microseconds stalled on CPU, from /proc/pressure/cpu.
        idle_ticks, all_ticks: CPU time of all CPUs, from /proc/stat.

    """

    t_ns: int
    some_us: int | None
    full_us: int | None
    idle_ticks: int | None
    all_ticks: int | None

    @classmethod
    def take(cls) -> Self:
        """Read them now."""
        some, full = _psi()
        idle, everything = _ticks()
        return cls(time.monotonic_ns(), some, full, idle, everything)

    def since(self, earlier: PressureReading) -> Pressure:
        """What happened since an earlier reading."""
        ticks = _difference(self.all_ticks, earlier.all_ticks)
        idle = _difference(self.idle_ticks, earlier.idle_ticks)
        return Pressure(
            elapsed_s=max(self.t_ns - earlier.t_ns, 1) * 1e-9,
            cpu_some_s=_seconds(_difference(self.some_us, earlier.some_us)),
            cpu_full_s=_seconds(_difference(self.full_us, earlier.full_us)),
            cpu_headroom=min(idle / ticks, 1.0) if ticks and idle is not None else None,
        )


def _difference(now: int | None, earlier: int | None) -> int | None:
    # The kernel's idle time may step back by a tick.
    return None if now is None or earlier is None else max(now - earlier, 0)


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds * 1e-6


def _psi() -> tuple[int | None, int | None]:
    totals: dict[str, int] = {}
    try:
        for line in Path("/proc/pressure/cpu").read_text(encoding="ascii").splitlines():
            kind, *fields = line.split()
            totals[kind] = next(int(field[6:]) for field in fields if field.startswith("total="))
    except (OSError, ValueError, StopIteration):
        return None, None
    return totals.get("some"), totals.get("full")


def _ticks() -> tuple[int | None, int | None]:
    """Idle ticks (idle and iowait) and all ticks, guests not counted twice."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
        ticks = [int(field) for field in first.split()[1:9]]
    except (OSError, ValueError):
        return None, None
    return (ticks[3] + ticks[4], sum(ticks)) if len(ticks) == 8 else (None, None)
