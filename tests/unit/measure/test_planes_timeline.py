"""Plane share and imbalance, and what the timeline refuses."""

from __future__ import annotations

import pytest

from testbed.errors import UsageError
from testbed.measure.definitions import Report
from testbed.measure.match import match
from testbed.measure.planes import plane_figures, planes_seen
from testbed.measure.reorder import reordering
from testbed.measure.streams import Level, streams
from testbed.measure.timeline import Timeline, timeline
from testbed.record import Figure
from testbed.samples import Samples
from tests.unit.measure.traces import MS, T0, Arrival, Sent, samples, steady


def by_name(seen: Samples, planes: tuple[int, ...] | None = None) -> dict[tuple[str, str], Figure]:
    matched = match(seen)
    found = plane_figures(matched, planes_seen(matched) if planes is None else planes, Report())
    return {(f.name, f.scope): f for f in found}


def line(seen: Samples, window: int, planes: tuple[int, ...] | None = None, origin: int | None = None) -> Timeline:
    matched = match(seen)
    order = reordering(streams(matched, Level.FLOW))
    return timeline(matched, order, window_ns=window, payload_bytes=125, planes=planes, origin_ns=origin)


def test_share_and_imbalance() -> None:
    # 400 packets over 4 planes; plane 2 loses half of its 100: 350 delivered, 87.5 on average.
    found = by_name(samples(*steady(400, MS, evs=4, planes=4, lost=range(2, 202, 4))))
    shares = [found["plane_share", f"plane {p}"].value for p in range(4)]
    assert shares == pytest.approx([100 / 350, 100 / 350, 50 / 350, 100 / 350])
    assert found["plane_imbalance", "all"].value == pytest.approx(100 / 87.5)
    assert found["plane_imbalance", "flow h0>h1"].value == pytest.approx(100 / 87.5)
    assert found["wrong_plane", "all"].value == 0


def test_a_plane_that_carried_nothing_counts_in_the_mean() -> None:
    found = by_name(samples(*steady(300, MS, evs=3, planes=3)), planes=(0, 1, 2, 3))
    assert found["plane_share", "plane 3"].value == 0
    assert found["plane_imbalance", "all"].value == pytest.approx(4 / 3)


def test_a_packet_on_the_wrong_plane_is_counted_where_it_arrived() -> None:
    sent, arrivals = steady(100, MS, evs=2, planes=2)
    arrivals[0] = arrivals[0]._replace(plane=1)
    found = by_name(samples(sent, arrivals))
    assert found["wrong_plane", "all"].value == 1
    assert found["plane_share", "plane 1"].value == pytest.approx(0.51)


def test_nothing_delivered_has_no_share() -> None:
    found = by_name(samples(steady(4, MS)[0], []))
    assert found["plane_share", "plane 0"].value is None
    assert found["plane_imbalance", "all"].value is None


def test_timeline_of_a_dead_plane() -> None:
    # Two planes, each a packet of 125 bytes per ms; plane 1 is dead from 100 to 150 ms.
    seen = samples(*steady(400, MS // 2, delay=0, evs=2, planes=2, lost=range(201, 301, 2)))
    found = line(seen, 50 * MS)
    assert found.planes == (0, 1)
    assert found.sent.tolist() == [[100] * 4, [50] * 4, [50] * 4]
    assert found.lost.tolist() == [[0, 0, 50, 0], [0] * 4, [0, 0, 50, 0]]
    assert found.delivered.tolist() == [[100, 100, 50, 100], [50] * 4, [50, 50, 0, 50]]
    assert found.goodput_bps[2].tolist() == pytest.approx([1e6, 1e6, 0, 1e6])
    assert found.starts_ns.tolist() == [T0, T0 + 50 * MS, T0 + 100 * MS, T0 + 150 * MS]


def test_timeline_of_nothing_has_no_windows() -> None:
    assert line(samples([], []), MS).sent.shape == (1, 0)


def test_timeline_aligned_to_an_event_still_holds_everything() -> None:
    found = line(samples(*steady(10, MS)), 4 * MS, origin=T0 + 6 * MS)
    assert found.origin_ns == T0 - 2 * MS
    assert found.sent[0].tolist() == [2, 4, 4, 0]
    assert found.delivered[0].tolist() == [1, 4, 4, 1]


@pytest.mark.parametrize(
    ("window", "planes", "message"),
    [(0, None, "longer than nothing"), (1, None, "too short"), (MS, (0, 1), "no row for")],
)
def test_timeline_refuses(window: int, planes: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        line(samples([Sent(0, 0, plane=2), Sent(1, MS, plane=2)], [Arrival(1, 2 * MS, plane=2)]), window, planes)
