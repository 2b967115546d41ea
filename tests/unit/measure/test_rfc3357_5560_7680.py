"""Loss, loss pattern and duplication on the examples of RFC 3357 §5.5 and §6, RFC 5560 §5.3, and RFC 7680."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from testbed.errors import InfrastructureError
from testbed.measure.loss import counts, pattern
from testbed.measure.match import Matched, match
from testbed.measure.streams import Level, streams
from tests.unit.measure.traces import MS, Arrival, Sent, samples

ALL = np.array([0])


def flow(lost: set[int], count: int, evs: int = 1) -> Matched:
    sent = [Sent(n, n * MS, ev=n % evs) for n in range(count)]
    return match(samples(sent, [Arrival(s.seq, s.t + MS) for s in sent if s.seq not in lost]))


def test_rfc3357_section_5_5() -> None:
    # Ten packets T1 … T10, of which T2, T5, T7, T9 and T10 are lost.
    found = pattern(streams(flow({1, 4, 6, 8, 9}, 10), Level.FLOW))
    # §5.5: loss distances 3 (T5 - T2), 2 (T7 - T5), 2 (T9 - T7), 1 (T10 - T9); the first loss has none.
    assert found.distances.of(ALL).tolist() == [3, 2, 2, 1]
    # §6.2, §6.3: four loss periods, of lengths 1, 1, 1, 2.
    assert found.periods.of(ALL).tolist() == [1, 1, 1, 2]


def test_the_pattern_of_an_ev_counts_its_own_packets() -> None:
    # Of 12 packets over 3 EVs, EV 1 carries 1, 4, 7, 10 and loses 4 and 7: neighbours on that EV.
    found = streams(flow({4, 7}, 12, evs=3), Level.EV)
    runs = pattern(found)
    assert [runs.periods.of(np.array([s])).tolist() for s in range(3)] == [[], [2], []]
    assert runs.distances.of(np.array([1])).tolist() == [1]
    whole = pattern(streams(found.matched, Level.FLOW))
    assert whole.periods.of(ALL).tolist() == [1, 1]
    assert whole.distances.of(ALL).tolist() == [3]


@pytest.mark.parametrize(
    ("arriving", "fraction", "replicated"),
    [
        ([1, 2, 3, 4], 0, 0),
        ([1, 1, 2, 2, 3, 3, 4, 4], 1, 1),
        ([1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4], 2, 1),
        ([1, 1, 1, 2, 3, 4], 0.5, 0.25),
    ],
)
def test_rfc5560_section_5_3(arriving: list[int], fraction: float, replicated: float) -> None:
    # Four packets sent; additional arrivals, and packets with additional arrivals, over packets that arrived.
    sent = [Sent(n, n * MS) for n in (1, 2, 3, 4)]
    found = counts(streams(match(samples(sent, [Arrival(n, 9 * MS) for n in arriving])), Level.FLOW))
    assert found.lost.sum() == 0
    assert found.duplicates.sum() / 4 == fraction
    assert found.replicated.sum() / 4 == replicated


def test_rfc7680_late_is_lost_and_counted() -> None:
    # The waiting time is 100 ms; an arrival at exactly 100 ms is on time, one 1 ns later is not.
    sent = [Sent(0, 0), Sent(1, 0), Sent(2, 0)]
    arrivals = [Arrival(0, 100 * MS), Arrival(1, 100 * MS + 1)]
    found = counts(streams(match(samples(sent, arrivals), 100 * MS), Level.FLOW))
    assert (found.sent[0], found.lost[0], found.late[0]) == (3, 2, 1)


def test_a_duplicate_after_the_waiting_time_is_late() -> None:
    found = match(samples([Sent(0, 0)], [Arrival(0, MS), Arrival(0, 90 * MS), Arrival(0, 101 * MS)]), 100 * MS)
    assert (found.duplicate.size, found.late.size, int(found.lost.sum())) == (1, 1, 0)


def test_a_refused_packet_is_lost_and_its_number_is_nobodys() -> None:
    sent = [Sent(0, 0), Sent(1, MS, status=errno.ENOBUFS), Sent(2, 2 * MS)]
    matched = match(samples(sent, [Arrival(0, 5 * MS), Arrival(1, 5 * MS), Arrival(2, 6 * MS), Arrival(9, 6 * MS)]))
    found = counts(streams(matched, Level.FLOW))
    assert (found.lost[0], found.refused[0]) == (1, 1)
    assert matched.foreign_flow.tolist() == [0, 0]


def test_a_number_sent_twice_is_refused_with_its_flow() -> None:
    sent = [Sent(0, 0), Sent(1, 1), Sent(0, 2, flow=1), Sent(1, 3, flow=1), Sent(1, 4, flow=1)]
    with pytest.raises(InfrastructureError, match="sent twice") as raised:
        match(samples(sent, [], flows=("h0>h1", "h0>h2")))
    assert raised.value.where == "flow h0>h2"
    assert "1" in raised.value.found


def test_a_flow_without_a_name_is_refused() -> None:
    with pytest.raises(InfrastructureError, match="without a name"):
        match(samples([Sent(0, 0, flow=1)], []))


def test_packets_offered_out_of_sequence_are_joined_all_the_same() -> None:
    matched = match(samples([Sent(2, 0), Sent(0, 1), Sent(1, 2)], [Arrival(1, 5), Arrival(2, 9)]))
    assert matched.lost.tolist() == [True, False, False]
    assert matched.delays().tolist() == [3, 9]
