"""What acknowledgements prove about packets in flight: round trips of planes, and which packets are lost.

A packet is lost when the receiver has said that it was not there (a hole), and one sent later had arrived: on the same
path and in the same class (paths keep their order); on another path of its plane, sent later by more than the reorder
floor (they share the sender's port, where most of the waiting is); or on any path, sent later by more than the reorder
window of the packet's plane.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc.sendwindow import Indices, SendWindow
from testbed.mrc.settings import Settings


class RoundTrips:
    """Smoothed round trip and deviation of each plane, by RFC 6298's filter (section 2).

    Attributes:
        floor_ns: how much later a packet may arrive than one sent after it on the same plane.
        windows_ns: i8 (planes,), how much later a packet of this plane may arrive than one sent after it on any other.
        slowest_ns: the longest smoothed round trip of a plane; the base one before the first sample.
    """

    def __init__(self, planes: int, settings: Settings) -> None:
        self.floor_ns = settings.reorder_floor_ns
        self._ceiling_ns = settings.ack_timeout_ns * 3 // 4
        self._smoothed: list[float | None] = [None] * planes
        self._deviation = [0.0] * planes
        self._shortest_ns = 0
        first = min(settings.nscc.base_rtt_ns + self.floor_ns, self._ceiling_ns)
        self.windows_ns = np.full(planes, first, "i8")
        self.slowest_ns = settings.nscc.base_rtt_ns

    def sample(self, plane: int, rtt_ns: int) -> None:
        """A packet sent on ``plane`` was acknowledged after ``rtt_ns``."""
        known = self._smoothed[plane]
        if known is None:
            self._smoothed[plane], self._deviation[plane] = float(rtt_ns), rtt_ns / 2
        else:
            self._deviation[plane] += (abs(known - rtt_ns) - self._deviation[plane]) / 4
            self._smoothed[plane] = known + (rtt_ns - known) / 8
        self._shortest_ns = min(self._shortest_ns or rtt_ns, rtt_ns)
        self.slowest_ns = int(max(rtt for rtt in self._smoothed if rtt is not None))
        self.windows_ns[plane] = self._window_ns(plane)

    def _window_ns(self, plane: int) -> int:
        """What is slow here may have been overtaken by what found every queue empty.

        It is the shortest round trip ever that counts for that, not the other planes' of late: a plane that comes back
        has no queue yet, whatever it had before.
        """
        smoothed = self._smoothed[plane]
        assert smoothed is not None
        latest = smoothed + max(4 * self._deviation[plane], self.floor_ns)
        return min(int(latest) - self._shortest_ns, self._ceiling_ns)


class Evidence:
    """The newest transmission known to have arrived: of each EV and class, and of all."""

    def __init__(self, planes: list[int], round_trips: RoundTrips) -> None:
        self._planes = np.array(planes, np.intp)
        self._newest_of_plane_ns = np.full(int(self._planes.max(initial=0)) + 1, -(1 << 62), "i8")
        self._newest = np.full(
            (2, len(planes)), -1, "i8"
        )  # order of transmission, by class (0: first, 1: again) and EV
        self._newest_order = -1
        self._newest_sent_ns = -1
        self._round_trips = round_trips

    def arrived(self, window: SendWindow, slots: Indices) -> None:
        """These packets, ascending, were sent once only, and have arrived."""
        order, evs = window.order[slots], window.ev[slots]
        np.maximum.at(self._newest[0], evs, order)
        np.maximum.at(self._newest_of_plane_ns, self._planes[evs], window.sent_ns[slots])
        self._newest_order = max(self._newest_order, int(order[-1]))
        self.arrived_sent_at(int(window.sent_ns[slots[-1]]))

    def arrived_again(self, window: SendWindow, slot: int) -> None:
        """The last transmission of this packet has arrived, whichever it was."""
        newest = self._newest[int(window.times[slot] > 1)]
        ev = window.ev[slot]
        newest[ev] = max(newest[ev], window.order[slot])
        self._newest_order = max(self._newest_order, int(newest[ev]))
        self.arrived_sent_at(int(window.sent_ns[slot]))

    def arrived_sent_at(self, sent_ns: int) -> None:
        """Something sent at that time has arrived."""
        self._newest_sent_ns = max(self._newest_sent_ns, sent_ns)

    def lost(self, window: SendWindow, holes: Indices) -> npt.NDArray[np.bool_]:
        """Which of ``holes`` (slots of packets that the receiver did not have) are lost."""
        sent_ns = window.sent_ns[holes]
        planes = self._planes[window.ev[holes]]
        by_time: npt.NDArray[np.bool_] = sent_ns < self._newest_sent_ns - self._round_trips.windows_ns[planes]
        by_time |= sent_ns < self._newest_of_plane_ns[planes] - self._round_trips.floor_ns
        order = window.order[holes]
        overtaken: npt.NDArray[np.bool_] = order < self._newest_order
        if np.count_nonzero(overtaken):
            again = (window.times[holes] > 1).view("u1")
            overtaken &= order < self._newest[again, window.ev[holes]]
        return overtaken | by_time
