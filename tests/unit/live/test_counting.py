"""Counts of a running workload are those of the finished one, in however many parts they were taken in."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.lab import Lab
from testbed.live.counting import Count, Counting
from testbed.measure.match import match
from testbed.measure.reorder import reordering
from testbed.measure.streams import Level, streams
from testbed.samples import ARRIVAL, SENT, SampleFlag
from tests.unit.reports.runs import MS, T0, reboot_run

_LATER = 10_000 * MS


def test_in_parts_they_are_those_of_the_finished_run() -> None:
    run = reboot_run(Lab.load("laptop"), seconds=2.5)
    samples, planes, flows = run.samples, run.lab.planes, len(run.samples.flows)
    sent = samples.sent[np.argsort(samples.sent["t_ns"], kind="stable")]
    arrivals = samples.arrivals[np.argsort(samples.arrivals["t_ns"], kind="stable")]
    counting, at, came = Counting(planes, flows, samples.waiting_time_ns, 4096), 0, 0
    # What has been written by then: rows are there before, and after, the moments of asking.
    for now in range(T0, T0 + 3_500 * MS, 37 * MS):
        at += counting.sent(sent[at : np.searchsorted(sent["t_ns"], now)], now)
        came += counting.arrived(arrivals[came : np.searchsorted(arrivals["t_ns"], now)], now)
        counting.give_up(now)
    assert (at, came) == (len(sent), len(arrivals))
    whole = match(samples)
    for plane in range(planes):
        here = whole.plane == plane
        counts = counting.of_plane[plane]
        assert counts[Count.SENT] == here.sum()
        assert counts[Count.LOST] == (whole.lost & here).sum()
        assert counts[Count.RECEIVED] == (~whole.lost & here).sum()
        assert counts[Count.BYTES] == 4096 * counts[Count.RECEIVED]
    assert counting.of_plane[:, Count.LOST].sum() > 0
    late = reordering(streams(whole, Level.FLOW))
    assert counting.of_plane[:, Count.REORDERED].sum() == late.packets.size
    assert (counting.of_flow.sum(axis=0) == counting.of_plane.sum(axis=0)).all()


def packets(*rows: tuple[int, int], dtype: np.dtype[np.void] = SENT, flags: int = 0) -> np.ndarray:
    """(sequence number, ms) of packets of flow 0 on plane 0."""
    made = np.zeros(len(rows), dtype)
    made["seq"], made["t_ns"] = [row[0] for row in rows], [T0 + row[1] * MS for row in rows]
    made["flags"], made["bytes"] = flags, 100
    return made


@pytest.fixture
def counting() -> Counting:
    made = Counting(2, 1, 200 * MS, None)
    made.sent(packets((0, 0), (1, 1), (2, 2), (3, 3)), T0 + _LATER)
    return made


def counts(counting: Counting) -> dict[str, int]:
    return {count.name.lower(): int(counting.of_plane[0, count]) for count in Count}


def test_a_second_arrival_is_a_duplicate_and_one_after_a_later_one_reordered(counting: Counting) -> None:
    came = packets((0, 1), (2, 3), (2, 4), (1, 5), dtype=ARRIVAL, flags=SampleFlag.PLACED)
    counting.arrived(came, T0 + _LATER)
    counting.arrived(packets((0, 6), dtype=ARRIVAL), T0 + _LATER)
    counting.give_up(T0 + _LATER)
    assert counts(counting) == {
        "sent": 4,
        "received": 3,
        "lost": 1,
        "reordered": 1,
        "duplicated": 2,
        "bytes": 400,
    }


def test_what_was_sent_again_is_no_packet_of_its_own_and_its_bytes_count_once_placed(counting: Counting) -> None:
    counting.sent(packets((1, 300), flags=SampleFlag.RETRANSMITTED), T0 + _LATER)
    again = packets((1, 301), dtype=ARRIVAL, flags=SampleFlag.RETRANSMITTED | SampleFlag.PLACED)
    counting.arrived(again, T0 + _LATER)
    counting.give_up(T0 + _LATER)
    assert (counts(counting)["sent"], counts(counting)["lost"], counts(counting)["bytes"]) == (4, 4, 100)


def test_nothing_is_lost_before_its_time(counting: Counting) -> None:
    counting.give_up(T0 + 290 * MS)
    assert counts(counting)["lost"] == 0
    counting.give_up(T0 + 303 * MS)
    assert counts(counting)["lost"] == 4


def test_what_names_no_flow_plane_or_packet_of_ours_counts_nowhere(counting: Counting) -> None:
    foreign = packets((0, 1), (1 << 60, 1), (0, 1), dtype=ARRIVAL)
    foreign["flow"][0], foreign["plane"][2] = 7, 9
    assert counting.arrived(foreign, T0 + _LATER) == 3
    assert counts(counting)["received"] == 0
