"""Reordering on the arrival orders that RFC 4737 works through in its section 7.

Ten or eleven packets leave every 20 ms and take 68 ms; some are held up. Every expectation below is worked
by hand from the definitions: packet s is reordered if s < NextExp (§3.3); its extent counts the arrivals
back to the earliest larger one (§4.2); its late time is the time since that one (§4.3); it is n-reordered
if the n arrivals right before it are all larger (§5).
"""

from __future__ import annotations

import numpy as np

from testbed.measure.match import match
from testbed.measure.reorder import Reordering, reordering
from testbed.measure.streams import Level, streams
from tests.unit.measure.traces import MS, Arrival, Sent, samples

ALL = np.array([0])


def received(*arrivals: tuple[int, int], flow_of_ev: int = 1) -> Reordering:
    """Reordering of one flow, from (sequence number, arrival in ms)."""
    sent = [Sent(s, (s - 1) * 20 * MS, ev=s % flow_of_ev) for s in range(1, max(s for s, _ in arrivals) + 1)]
    matched = match(samples(sent, [Arrival(s, t * MS) for s, t in arrivals]))
    return reordering(streams(matched, Level.FLOW))


def late_ms(found: Reordering) -> list[float]:
    return [late / MS for late in found.late_ns.of(ALL).tolist()]


def n_reordered(found: Reordering) -> list[int]:
    """Packets n-reordered for n = 1, 2, … up to the last that is not 0."""
    return [int(count) for count in np.trim_zeros(found.n_reordered[:, 0], "b")]


def test_section_7_1_one_packet_late() -> None:
    found = received((1, 68), (2, 88), (3, 108), (5, 148), (6, 168), (7, 188), (8, 208), (4, 210), (9, 228), (10, 248))
    # Packet 4 comes 8th; NextExp is 9. The earliest larger arrival is 5, the 4th: 8 - 4 = 4, 210 - 148 = 62.
    assert found.extents.of(ALL).tolist() == [4]
    assert late_ms(found) == [62]
    assert found.received.tolist() == [10]
    # Right before it came 8, 7, 6, 5, all larger, then 3, which is not: 4-reordered, not 5-reordered.
    assert n_reordered(found) == [1, 1, 1, 1]


def test_section_7_2_two_packets_late() -> None:
    found = received((1, 68), (2, 88), (3, 108), (4, 128), (7, 188), (5, 189), (6, 190), (8, 208), (9, 228), (10, 248))
    # 7 is the earliest larger arrival of both: one and two arrivals, 1 and 2 ms before.
    assert found.extents.of(ALL).tolist() == [1, 2]
    assert late_ms(found) == [1, 2]
    # 5 follows 7 and then 4: 1-reordered. 6 follows 5, which is smaller: not n-reordered at all.
    assert n_reordered(found) == [1]


def test_section_7_3_three_packets_late() -> None:
    found = received(
        (1, 68), (2, 88), (3, 108), (7, 188), (8, 208), (9, 228), (10, 248), (4, 250), (5, 252), (6, 256), (11, 268)
    )
    # The earliest larger arrival of all three is 7, the 4th; they come 8th, 9th and 10th.
    assert found.extents.of(ALL).tolist() == [4, 5, 6]
    assert late_ms(found) == [62, 64, 68]
    # 4 follows 10, 9, 8, 7: 4-reordered. 5 and 6 follow a smaller one.
    assert n_reordered(found) == [1, 1, 1, 1]


def test_in_order_with_losses_is_not_reordered() -> None:
    # §3.3: a number above NextExp is a discontinuity, not a reordered packet.
    found = received((1, 68), (2, 88), (6, 168), (9, 228))
    assert found.extents.of(ALL).size == 0
    assert n_reordered(found) == []


def test_a_duplicate_is_not_reordered() -> None:
    # §3.3 judges the first arrival of each packet; the second 1 is a duplicate.
    found = received((1, 68), (2, 88), (1, 90), (3, 108))
    assert found.extents.of(ALL).size == 0
    assert found.received.tolist() == [3]


def test_flows_are_never_compared_with_each_other() -> None:
    sent = [Sent(s, s * MS, flow=f) for s in range(4) for f in range(2)]
    first = [Arrival(s, (50 + s) * MS, flow=1) for s in (2, 3, 0, 1)]
    second = [Arrival(s, (60 + s) * MS, flow=0) for s in range(4)]
    matched = match(samples(sent, first + second, flows=("a>b", "c>b")))
    found = reordering(streams(matched, Level.FLOW))
    assert found.extents.of(np.array([0])).tolist() == []
    assert found.extents.of(np.array([1])).tolist() == [2, 3]


def test_spraying_reorders_the_flow_and_not_its_evs() -> None:
    # Even packets take a path 5 ms longer; each path keeps its order.
    sent = [Sent(s, s * MS, ev=s % 2, plane=s % 2) for s in range(100)]
    arrivals = sorted((Arrival(s.seq, s.t + (6 if s.ev == 0 else 1) * MS) for s in sent), key=lambda a: a.t)
    matched = match(samples(sent, arrivals))
    # Packet 96 and 98 still find larger ones before them: every even packet from 0 on is overtaken by the
    # odd ones sent up to 5 ms after it, 1, 3, 5 (the last at the same time, 99 being the last there is).
    flow = reordering(streams(matched, Level.FLOW))
    assert flow.extents.of(ALL).size == 50
    for level in (Level.EV, Level.PLANE):
        assert reordering(streams(matched, level)).packets.size == 0
