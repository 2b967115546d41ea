"""What may be overtaken by what, and so is not lost."""

from __future__ import annotations

import numpy as np

from testbed.mrc.losses import Evidence, RoundTrips
from testbed.mrc.sendwindow import IN_FLIGHT, SendWindow
from testbed.mrc.settings import Settings

MS = 1_000_000
SETTINGS = Settings()
FLOOR_NS = SETTINGS.reorder_floor_ns


def settled(planes: int, rtt_ns: int, shortest_ns: int) -> RoundTrips:
    """Planes with full queues, which were empty once."""
    trips = RoundTrips(planes, SETTINGS)
    for plane in range(planes):
        trips.sample(plane, shortest_ns)
        for _ in range(100):
            trips.sample(plane, rtt_ns)
    return trips


def sent(*packets: tuple[int, int]) -> SendWindow:
    """A window in which packets are in flight: (when they were sent, on which EV)."""
    window = SendWindow(0, 128)
    slots = np.arange(len(packets))
    window.next = len(packets)
    window.state[slots] = IN_FLIGHT
    window.times[slots] = 1
    window.order[slots] = slots
    window.sent_ns[slots] = [at for at, _ in packets]
    window.ev[slots] = [ev for _, ev in packets]
    return window


def test_a_plane_with_an_empty_queue_overtakes_all_others_and_nothing_is_lost() -> None:
    """A plane that is back has no queue yet, while its round trip is remembered from before."""
    trips = settled(2, rtt_ns=8 * MS, shortest_ns=MS)
    evidence = Evidence([0, 1], trips)
    window = sent((0, 0), (1 * MS, 0), (6 * MS, 1))
    evidence.arrived(window, np.array([2]))
    assert not evidence.lost(window, np.array([0, 1])).any()


def test_a_plane_is_silent_when_even_a_full_queue_would_have_let_the_packet_through() -> None:
    trips = settled(2, rtt_ns=8 * MS, shortest_ns=MS)
    due_ns = int(trips.windows_ns[0])
    assert abs(due_ns - 7 * MS - FLOOR_NS) < MS // 10
    evidence = Evidence([0, 1], trips)
    window = sent((0, 0), (1, 0), (due_ns + 1, 1))
    evidence.arrived(window, np.array([2]))
    assert evidence.lost(window, np.array([0, 1])).tolist() == [True, False]


def test_a_packet_is_not_waited_for_until_the_ack_timer_would_expire() -> None:
    trips = settled(1, rtt_ns=100 * MS, shortest_ns=MS)
    assert trips.windows_ns.tolist() == [SETTINGS.ack_timeout_ns * 3 // 4]
