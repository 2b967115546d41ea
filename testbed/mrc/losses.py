"""What acknowledgements prove about packets in flight: round trips of planes, and which packets are lost.

A packet is lost when the receiver has said that it was not there (a hole), and either one sent later on the same path
and in the same class had arrived (paths keep their order), or one sent later by more than the reorder window had.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc.sendwindow import Indices, SendWindow
from testbed.mrc.settings import Settings


class RoundTrips:
    """Smoothed round trip and deviation of each plane, by RFC 6298's filter (section 2).

    Attributes:
        reorder_window_ns: how much later a packet may arrive than one sent after it, on another path.
        slowest_ns: the longest smoothed round trip of a plane; the base one before the first sample.
    """

    def __init__(self, planes: int, settings: Settings) -> None:
        self._floor_ns = settings.reorder_floor_ns
        self._ceiling_ns = settings.ack_timeout_ns * 3 // 4
        self._smoothed: list[float | None] = [None] * planes
        self._deviation = [0.0] * planes
        self.reorder_window_ns = min(self._floor_ns, self._ceiling_ns)
        self.slowest_ns = settings.nscc.base_rtt_ns

    def sample(self, plane: int, rtt_ns: int) -> None:
        """A packet sent on ``plane`` was acknowledged after ``rtt_ns``."""
        known = self._smoothed[plane]
        if known is None:
            self._smoothed[plane], self._deviation[plane] = float(rtt_ns), rtt_ns / 2
        else:
            self._deviation[plane] += (abs(known - rtt_ns) - self._deviation[plane]) / 4
            self._smoothed[plane] = known + (rtt_ns - known) / 8
        measured = [rtt for rtt in self._smoothed if rtt is not None]
        self.slowest_ns = int(max(measured))
        window = self.slowest_ns - min(measured) + 4 * max(self._deviation)
        self.reorder_window_ns = min(max(self._floor_ns, int(window)), self._ceiling_ns)


class Evidence:
    """The newest transmission known to have arrived: of each EV and class, and of all."""

    def __init__(self, evs: int, round_trips: RoundTrips) -> None:
        self._newest = np.full((2, evs), -1, "i8")  # order of transmission, by class (0: first, 1: again) and EV
        self._newest_order = -1
        self._newest_sent_ns = -1
        self._round_trips = round_trips

    def arrived(self, window: SendWindow, slots: Indices) -> None:
        """These packets, ascending, were sent once only, and have arrived."""
        order = window.order[slots]
        np.maximum.at(self._newest[0], window.ev[slots], order)
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
        by_time = window.sent_ns[holes] < self._newest_sent_ns - self._round_trips.reorder_window_ns
        order = window.order[holes]
        overtaken: npt.NDArray[np.bool_] = order < self._newest_order
        if np.count_nonzero(overtaken):
            again = (window.times[holes] > 1).view("u1")
            overtaken &= order < self._newest[again, window.ev[holes]]
        return overtaken | by_time
