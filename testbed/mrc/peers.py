"""Another NIC: the paths to it, the window towards it, the EVs of replies, and the ports at both ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from testbed.mrc.evs import EvSet, ReverseEvs
from testbed.mrc.nscc import Destination
from testbed.mrc.psn import distance
from testbed.mrc.rows import EvCause, Rows
from testbed.mrc.settings import Settings

if TYPE_CHECKING:
    from testbed.mrc.queuepair import QueuePair

#: A port status update that nobody answers is sent so often.
ANNOUNCEMENTS = 8


@dataclass(slots=True)
class Announcement:
    """A port status update on its way: its number, and when it is to be sent next."""

    number: int
    due_ns: int
    sent: int = 0


class Peer:
    """One peer.

    Attributes:
        name, address: of the NIC; the address is the inner one.
        evs, planes: u4 and u1 (n,), the EVs towards it. first_path: row of the path table of the first.
        destination: its congestion window. reverse: the EVs of replies to it.
        qps: by index. heard_ns: when anything of it last came.
        inbound_ns, outbound_ns: when a WRITE last came from it, and went to it.
        announcement: of our ports, while it has not answered.
    """

    def __init__(
        self,
        name: str,
        address: str,
        evs: npt.NDArray[np.uint32],
        planes: npt.NDArray[np.uint8],
        first_path: int,
        settings: Settings,
        *,
        seed: int,
        number: int,
    ) -> None:
        self.name = name
        self.address = address
        self.evs = evs
        self.planes = planes
        self.first_path = first_path
        self.destination = Destination(settings.nscc)
        self.reverse = ReverseEvs(evs, planes, settings.evs, seed=seed, peer=number)
        self.qps: dict[int, QueuePair] = {}
        self.heard_ns = -1
        self.inbound_ns: int | None = None
        self.outbound_ns: int | None = None
        self.announcement: Announcement | None = None
        self._guard_ns = settings.reorder_floor_ns
        self._down = 0
        self._changed_ns: int | None = None
        self._last_update: int | None = None

    def addressed(self, rows: Rows, now_ns: int) -> Rows:
        """Give replies their paths; none are left where every plane is down."""
        chosen = self.reverse.choose(len(rows), now_ns)
        rows = rows[: len(chosen)]
        rows["path"] = chosen + self.first_path
        return rows

    def receives_only(self, now_ns: int, period_ns: int) -> bool:
        """Whether WRITEs came from it lately, and none went to it."""
        if self.inbound_ns is None or now_ns - self.inbound_ns > period_ns:
            return False
        return self.outbound_ns is None or now_ns - self.outbound_ns > period_ns

    def introduce(self, evs: EvSet, local_down: int, now_ns: int) -> None:
        """Tell a new EV set which ports are down."""
        for plane in planes_of(local_down):
            evs.set_port(plane, False, EvCause.LOCAL_PORT, now_ns)
        for plane in planes_of(self._down):
            evs.set_port(plane, False, EvCause.PEER_PORT, now_ns)

    def port_changed(self, plane: int, up: bool, cause: EvCause, now_ns: int) -> None:
        """A port of this plane, at either end, is up or down from now on."""
        self.reverse.set_port(plane, up, cause, now_ns)
        for qp in self.qps.values():
            if qp.connection is not None:
                qp.connection.evs.set_port(plane, up, cause, now_ns)
                if not up:
                    qp.connection.requester.plane_down(plane, now_ns)

    def on_update(self, number: int, down: int, now_ns: int) -> bool:
        """Its port status update; ones overtaken by newer ones are passed over. Whether anything changed."""
        if self._last_update is not None and distance(number, self._last_update) < 0:
            return False
        self._last_update = number
        return self._ports_are(down, now_ns)

    def on_sack_ports(self, down: int, now_ns: int) -> bool:
        """Port state of a SACK of it; whether anything changed.

        For a short time after a change a SACK may still be one of before, and is not believed; port status updates
        and later SACKs tell.
        """
        if self._changed_ns is not None and now_ns - self._changed_ns < self._guard_ns:
            return False
        return self._ports_are(down, now_ns)

    def _ports_are(self, down: int, now_ns: int) -> bool:
        changed = self._down ^ down
        if not changed:
            return False
        self._down = down
        self._changed_ns = now_ns
        for plane in planes_of(changed):
            self.port_changed(plane, not down >> plane & 1, EvCause.PEER_PORT, now_ns)
        return True


def planes_of(mask: int) -> list[int]:
    """The planes whose bits are set."""
    return [plane for plane in range(mask.bit_length()) if mask >> plane & 1]
