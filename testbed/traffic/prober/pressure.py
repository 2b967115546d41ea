"""When the machine itself was dropping packets: what is lost then accuses nobody."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt

_SOFTNET = Path("/proc/net/softnet_stat")


def backlog_drops() -> int:
    """Packets dropped so far by the queues in which the kernel keeps them for each processor (netdev_max_backlog)."""
    return sum(int(line.split()[1], 16) for line in _SOFTNET.read_text().splitlines())


class Disturbances:
    """Spans of time in which a counter of the machine's own drops rose."""

    def __init__(self, keep_ns: int) -> None:
        self._keep_ns = keep_ns
        self._spans: deque[tuple[int, int]] = deque()
        self._read_ns = 0

    def read(self, now_ns: int, dropped: int) -> None:
        """Note a reading: ``dropped`` packets since the one before."""
        if dropped:
            self._spans.append((self._read_ns, now_ns))
        self._read_ns = now_ns
        while self._spans and self._spans[0][1] < now_ns - self._keep_ns:
            self._spans.popleft()

    def touch(self, sent_ns: npt.NDArray[np.int64], waiting_ns: int) -> npt.NDArray[np.bool_]:
        """Which probes, by the time they were sent, the machine may have dropped while they were on their way."""
        hit = np.zeros(len(sent_ns), bool)
        for begin, end in self._spans:
            hit |= (sent_ns <= end) & (sent_ns + waiting_ns >= begin)
        return hit
