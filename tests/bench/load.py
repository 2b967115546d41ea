"""Whose work the processors did while something was timed.

A benchmark shares its machine. What ran besides it is what all processors did less what the processes of the benchmark
did; time the hypervisor gave to others counts as that, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.pressure import PressureReading

#: Above this share of all processor time a sample counts as disturbed.
MOST_FOREIGN = 0.15
_MOMENT_S = 0.5


@dataclass(frozen=True)
class Share:
    """Shares of all processor time: idle, spent by the benchmark's processes, and by everything else."""

    headroom: float
    own: float
    foreign: float


class Load:
    """Watches the processors; :meth:`share` says how they were used since."""

    def __init__(self, besides: Iterable[int] = ()) -> None:
        """``besides``: processes, by id, that are the benchmark's without being children it has waited for."""
        self._own = _own_s(besides)
        self._began = PressureReading.take()

    def share(self, besides: Iterable[int] = ()) -> Share:
        """How they were used; ``besides`` as above, for those that have come into being meanwhile."""
        spent = PressureReading.take().since(self._began)
        whole = spent.elapsed_s * (os.cpu_count() or 1)
        own = min(1.0, (_own_s(besides) - self._own) / whole)
        headroom = 1 - own if spent.cpu_headroom is None else spent.cpu_headroom
        return Share(headroom, own, max(0.0, 1 - headroom - own))


def wait_until_quiet(patience_s: float) -> bool:
    """Wait until the processors were mostly idle for a moment; False when that did not come within ``patience_s``."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = PressureReading.take()
        time.sleep(_MOMENT_S)  # The moment that is looked at.
        headroom = PressureReading.take().since(before).cpu_headroom
        if headroom is not None and 1 - headroom <= MOST_FOREIGN / 2:
            return True
    return False


@contextmanager
def watched(shares: list[Share]) -> Iterator[None]:
    """Append how the processors were used within the block, all of whose processes are waited for in it."""
    load = Load()
    yield
    shares.append(load.share())


def _own_s(besides: Iterable[int]) -> float:
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    ticks = os.sysconf("SC_CLK_TCK")
    for pid in besides:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15]) / ticks
    return total
