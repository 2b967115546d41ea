"""What the NIC shows of itself while it runs, and when."""

from __future__ import annotations

import time

from testbed.mrc.datapath.outlet import Outlet
from testbed.mrc.datapath.receiver import Receiver
from testbed.mrc.datapath.ring import PacketRing
from testbed.mrc.datapath.shared import NicFiles
from testbed.mrc.datapath.stages import Stages
from testbed.mrc.engine import Engine

#: Counters and EV events are shown this often under load; before a longer wait, but not more often than the latter.
BUSY_NS, IDLE_NS = 100_000_000, 10_000_000
#: Counters that have a name in the field: mlx5's ``ethtool -S`` and the hardware counters of ``rdma statistic``.
_FIELD_NAMES = {"bad_icrc": "rx_icrc_encapsulated"}


class Display:
    """Counters and EV events of a NIC, in shared memory if there is any."""

    def __init__(
        self,
        files: NicFiles | None,
        engine: Engine,
        receiver: Receiver,
        outlets: tuple[Outlet, Outlet],
        ring: PacketRing,
        stages: Stages,
    ) -> None:
        self._files = files
        self._engine = engine
        self._receiver = receiver
        self._data, self._control = outlets
        self._ring = ring
        self._stages = stages
        self._drops = 0
        self._shown_ns = 0

    def counters(self) -> dict[str, int]:
        """Everything that is counted, by name."""
        self._drops += self._ring.take_drops()
        found = self._engine.counters()
        found |= self._data.counters("data") | self._control.counters("control")
        found["out_of_buffer"] = self._drops
        found["mrc_received"] = self._receiver.received
        found["mrc_unread"] = max(self._ring.seen - self._drops - self._receiver.received, 0)
        found["mrc_ring_frames"] = self._ring.frames
        for reason, count in self._receiver.dropped.items():
            name = _FIELD_NAMES.get(reason, f"mrc_rx_{reason}")
            found[name] = found.get(name, 0) + count
        found["mrc_cpu_ns"] = time.process_time_ns()
        return found | self._stages.by_name()

    def due_in(self, now_ns: int, *, idle: bool) -> int:
        """How long until it is time to show, in nanoseconds; 0 when it is time."""
        if self._files is None:
            return 1 << 62
        return max(0, self._shown_ns + (IDLE_NS if idle else BUSY_NS) - now_ns)

    def show(self, now_ns: int) -> None:
        """Show counters and events as they are now."""
        self._shown_ns = now_ns
        files = self._files
        if files is None:
            return
        if files.events is not None:
            events = self._engine.ev_events()
            if len(events):
                # The engine's clock is the monotonic one; what a watcher compares with is CLOCK_REALTIME.
                events["t_ns"] += time.time_ns() - time.monotonic_ns()
                files.events.append(events)
        files.counters.write(self.counters(), time.time_ns())
