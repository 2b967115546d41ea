"""Calls as they are looked at while they run: what the ports of their hosts have seen of RTP so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from testbed.fabric.protocols import Process
from testbed.live.counting import HOLD_NS, Counting
from testbed.live.views import Snapshot
from testbed.samples import ARRIVAL, SENT
from testbed.traffic.views import alive
from testbed.traffic.voice.cast import Cast
from testbed.traffic.voice.records import WAITING_TIME_NS
from testbed.traffic.voice.wire import ROWS, Rows

_WRAP = 1 << 16
#: SSRC, source, destination.
_Leg = tuple[int, bytes, bytes]


@dataclass
class _Numbers:
    """Sequence numbers of one leg as it left or arrived, over their wraps."""

    last: int

    def counted(self, seq: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
        """Each is near the one before it."""
        values = np.concatenate([[self.last % _WRAP], seq.astype(np.int64)])
        steps = (np.diff(values) + _WRAP // 2) % _WRAP - _WRAP // 2
        counted: npt.NDArray[np.int64] = self.last + np.cumsum(steps)
        self.last = int(counted[-1]) if counted.size else self.last
        return counted


@dataclass
class _Flow:
    """A leg that something was seen of: its number, that of its first packet, and how far both ends have come."""

    number: int
    first: int
    left: _Numbers = field(init=False)
    came: _Numbers = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.came = _Numbers(self.first), _Numbers(self.first)


class CallsView:
    """Calls that run. A flow is one leg of one direction of a call, told by its SSRC.

    Args:
        fabric, lab: their names.
        planes: how many the fabric has.
        cast: who plays; its watchers' rows are read.
        names: of hosts, by packed address.
        legs: how many there can be; of more, as after a relay was replaced by another, nothing is told.
    """

    def __init__(self, fabric: str, lab: str, planes: int, cast: Cast, names: Mapping[bytes, str], legs: int) -> None:
        self._fabric, self._lab = fabric, lab
        self._cast = cast
        self._names = names
        self._most = legs
        self._counting = Counting(planes, legs, WAITING_TIME_NS, None, by_row=True)
        self._flows: dict[_Leg, _Flow] = {}
        self._read: dict[Path, int] = {}
        self._waiting: Rows = np.zeros(0, ROWS)

    def look(self, now_ns: int) -> Snapshot:
        """See :class:`testbed.live.views.View`."""
        rows = np.concatenate([self._waiting, *self._new()])
        due = rows["t_ns"] <= now_ns - 2 * HOLD_NS
        self._waiting = rows[~due]
        rows = rows[due]
        rows = rows[np.argsort(rows["t_ns"], kind="stable")]
        for left in (True, False):
            self._take(rows[rows["left"] == left], now_ns, left=left)
        self._counting.give_up(now_ns)
        named = [
            f"ssrc {ssrc:#010x} {self._names.get(src, '?')}>{self._names.get(dst, '?')}"
            for ssrc, src, dst in self._flows
        ]
        return Snapshot(
            "calls",
            self._fabric,
            self._lab,
            tuple(named),
            self._counting.of_plane.copy(),
            self._counting.of_flow[: len(named)].copy(),
            processes=alive(self._processes()),
        )

    def _new(self) -> list[Rows]:
        """What watchers have written since the last look, whole rows only."""
        found = []
        for path in sorted(self._cast.wire.iterdir()):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                part = file.read()
            whole = len(part) // ROWS.itemsize * ROWS.itemsize
            self._read[path] = self._read.get(path, 0) + whole
            found.append(np.frombuffer(part[:whole], ROWS))
        return found

    def _take(self, rows: Rows, now_ns: int, *, left: bool) -> None:
        """Rows of packets that left, or that came, in order of time."""
        parts = []
        legs = list(zip(rows["ssrc"].tolist(), rows["src"].tolist(), rows["dst"].tolist(), strict=True))
        of_leg: dict[_Leg, list[int]] = {}
        for at, leg in enumerate(legs):
            of_leg.setdefault(leg, []).append(at)
        for leg, places in of_leg.items():
            own = rows[places]
            flow = self._flows.get(leg)
            if flow is None and left and len(self._flows) < self._most:
                flow = self._flows[leg] = _Flow(len(self._flows), int(own["seq"][0]))
            if flow is None:
                continue
            made = np.zeros(len(own), SENT if left else ARRIVAL)
            made["seq"] = np.maximum((flow.left if left else flow.came).counted(own["seq"]) - flow.first, 0)
            made["flow"] = flow.number
            for name in ("t_ns", "plane", "bytes"):
                made[name] = own[name]
            parts.append(made)
        if parts:
            every = np.concatenate(parts)
            every = every[np.argsort(every["t_ns"], kind="stable")]
            (self._counting.sent if left else self._counting.arrived)(every, now_ns)

    def _processes(self) -> dict[str, list[Process]]:
        cast = self._cast
        return {
            "client": list(cast.clients),
            "relay": list(cast.relays.values()),
            "transceiver": [cast.transceiver],
            "backend": [cast.backend],
            "store": [cast.store] if cast.store is not None else [],
        }
