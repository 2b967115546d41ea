"""Failover of calls on a plane, counted by packets; figures of planes and of directions on them."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.measure.definitions import Report
from testbed.measure.match import match
from testbed.measure.voice_planes import failover, plane_figures
from testbed.record import Event, Figure
from tests.unit.measure.traces import MS, T0, Arrival, Sent, samples

REPORT = Report()


def hit(at_ms: float) -> Event:
    return Event(round(T0 + at_ms * MS), "fabric", "p0-t1-0", "carrier lost")


def of(lost: list[int], *, count: int = 200, fault_ms: float = 1000) -> Figure:
    """Packets every 20 ms, of which some are lost."""
    missing = np.zeros(count, np.bool_)
    missing[lost] = True
    return failover(T0 + np.arange(count) * 20 * MS, missing, hit(fault_ms), "up plane 0", REPORT)


def test_it_lasts_until_the_packet_behind_the_last_one_lost() -> None:
    found = of([*range(50, 90)])
    assert found.value == pytest.approx(0.8)
    assert found.resolution == pytest.approx(0.02)
    assert not found.at_least


def test_half_of_the_paths_being_dead_is_no_recovery() -> None:
    assert of([*range(51, 100, 2)]).value == pytest.approx(1.0)


def test_what_is_lost_before_the_fault_or_now_and_then_is_none() -> None:
    assert of([*range(10, 50), 70, 120]).value == 0.0
    # Two of twenty are a tenth, three are more.
    assert of([60, 70]).value == 0.0
    assert of([60, 65, 70]).value == pytest.approx(0.42)


def test_without_an_end_it_is_a_lower_bound() -> None:
    found = of([*range(150, 200)], fault_ms=3000)
    assert found.at_least
    assert found.value == pytest.approx(0.98)


def test_too_few_packets_decide_nothing() -> None:
    found = of([], fault_ms=3700)
    assert found.value is None
    assert "15 packets" in found.note


def test_each_plane_has_figures_of_both_directions_and_of_each() -> None:
    sent = [Sent(n, n * 20 * MS, flow=flow, plane=n % 2) for flow in (0, 1) for n in range(100)]
    arrived = [Arrival(s.seq, s.t + MS, flow=s.flow, plane=s.plane) for s in sent if (s.flow, s.plane) != (1, 1)]
    matched = match(samples(sent, arrived, flows=("call 0 up h0>h1", "call 0 down h1>h0")))
    figures = list(plane_figures(matched, ("up", "down"), [hit(0)], REPORT))
    values = {(each.name, each.scope): each.value for each in figures}
    assert [values["lost", scope] for scope in ("plane 0", "plane 1", "up plane 1", "down plane 1")] == [0, 50, 0, 50]
    assert [values["sent", scope] for scope in ("plane 1", "down plane 1")] == [100, 50]
    assert values["plane_failover", "up plane 1"] == 0
    assert ("lost", "plane 2") not in values
