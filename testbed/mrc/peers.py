"""Another NIC: the paths to it, the window towards it, the EVs of replies, and the ports at both ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from testbed.mrc.evs import EvSet, ReverseEvs
from testbed.mrc.nscc import Destination
from testbed.mrc.psn import distance
from testbed.mrc.rows import EvCause, Rows
from testbed.mrc.sendwindow import Indices
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
        announcement: of our ports, while it has not answered. denied: EVs that a controller forbids towards it alone.
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
        self.denied: set[int] = set()
        self._guard_ns = settings.reorder_floor_ns
        self._live = np.unique(planes).tolist()
        self._down = 0
        self._local_down = 0
        self._changed_ns: int | None = None
        self._last_update: int | None = None

    def reply_paths(self, now_ns: int, came_by: int | None = None) -> Indices:
        """The path of an answer: one for all its rows, so that none overtakes another; none without a live plane.

        ``came_by``: the EV by which the last of what is answered came; the answer takes the same, if it may.
        """
        way = None if came_by is None else self.reverse.same_as(came_by)
        if way is None:
            return self.reverse.choose(1, now_ns) + self.first_path
        return np.array([way + self.first_path], np.int64)

    def probed_paths(self, now_ns: int, probed: Collection[int], *, everywhere: bool) -> Indices:
        """The paths of an answer to probes: those by which they came, whatever is known of these, and another.

        Args:
            now_ns: now.
            probed: EVs by which they came.
            everywhere: another on each live plane: whoever sends reliability probes may hear on only one of them.
        """
        ways = {*self.reverse.choose(len(self._live) if everywhere else 1, now_ns).tolist()}
        ways.update(way for ev in probed if (way := self.reverse.same_as(ev, failed=True)) is not None)
        return np.array(sorted(ways), np.int64) + self.first_path

    def receives_only(self, now_ns: int, period_ns: int) -> bool:
        """Whether WRITEs came from it lately, and none went to it."""
        if self.inbound_ns is None or now_ns - self.inbound_ns > period_ns:
            return False
        return self.outbound_ns is None or now_ns - self.outbound_ns > period_ns

    def reverse_probe_due_ns(self, now_ns: int, period_ns: int) -> int | None:
        """When to look next whether a reverse EV is to be probed; None while there is no reason to."""
        due = self.reverse.next_due_ns()
        if self.inbound_ns is None or due is None or not self.qps:
            return None
        if self.outbound_ns is not None:
            due = max(due, self.outbound_ns + period_ns + 1)
        due = max(due, now_ns + 1)
        return due if due <= self.inbound_ns + period_ns else None

    def set_denied(self, evs: npt.NDArray[np.uint32], everywhere: Collection[int], now_ns: int) -> None:
        """Of these EVs those are denied, to queue pairs and replies, that are so ``everywhere`` or towards it."""
        forbidden = np.isin(evs, np.fromiter({*everywhere, *self.denied}, np.uint32))
        for denied in (True, False):
            changed = evs[forbidden == denied]
            if not changed.size:
                continue
            self.reverse.set_denied(changed, denied, now_ns)
            for qp in self.qps.values():
                if qp.connection is not None:
                    qp.connection.evs.set_denied(qp.connection.evs.index_of(changed), denied, now_ns)

    def introduce(self, evs: EvSet, now_ns: int) -> None:
        """Tell a new EV set which ports are down."""
        for plane in planes_of(self._local_down):
            evs.set_port(plane, False, EvCause.LOCAL_PORT, now_ns)
        for plane in planes_of(self._down):
            evs.set_port(plane, False, EvCause.PEER_PORT, now_ns)

    def port_changed(self, plane: int, up: bool, cause: EvCause, now_ns: int) -> None:
        """A port of this plane, at either end, is up or down from now on."""
        self.note_port(plane, up, cause, now_ns)
        self.remap(plane, up, cause, now_ns)

    def note_port(self, plane: int, up: bool, cause: EvCause, now_ns: int) -> None:
        """The first half of it: answers, and updates of our ports, take other planes."""
        if cause is EvCause.LOCAL_PORT:
            self._local_down = self._local_down & ~(1 << plane) if up else self._local_down | 1 << plane
        every, down = np.unique(self.planes).tolist(), self._down | self._local_down
        self._live = [each for each in every if not down >> each & 1]
        # The window is made for the queues of all planes.
        self.destination.share = len(self._live) / len(every)
        self.reverse.set_port(plane, up, cause, now_ns)

    def remap(self, plane: int, up: bool, cause: EvCause, now_ns: int) -> None:
        """The second half: every queue pair does, some 40 microseconds for each."""
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


def along(paths: Indices, rows: Rows) -> Rows:
    """The rows once for each of the paths."""
    again: Rows = np.tile(rows, len(paths)) if len(paths) != 1 else rows
    again["path"] = paths if len(rows) == 1 else np.repeat(paths, len(rows))
    return again


def planes_of(mask: int) -> list[int]:
    """The planes whose bits are set."""
    return [plane for plane in range(mask.bit_length()) if mask >> plane & 1]
