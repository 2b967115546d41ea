"""Blocked time from loss, outage from gaps, and their agreement."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.measure.definitions import Report
from testbed.measure.match import match
from testbed.measure.outage import Outages, agreement, disagreement_figure, outage_figures, outages
from testbed.measure.streams import Level, streams
from tests.unit.measure.traces import MS, Arrival, Sent, samples, steady

ONE = np.array([0])


def of(sent: list[Sent], arrivals: list[Arrival], level: Level = Level.FLOW) -> Outages:
    return outages(streams(match(samples(sent, arrivals)), level))


def test_both_methods_agree_on_a_path_dead_for_50_packets() -> None:
    # One packet per ms, 50 of them lost in a row: 50 ms blocked. The gap from 199's arrival to 250's is 51 ms.
    found = of(*steady(1000, MS, lost=range(200, 250)))
    assert found.blocked_ns(ONE) == pytest.approx(50 * MS)
    assert found.outage_ns[0] == pytest.approx(50 * MS)
    assert not found.cut[0]
    both = agreement(found, 0)
    assert both
    assert both.agrees
    assert both.tolerance_s == pytest.approx(0.010)


def test_the_tolerance_is_two_intervals_where_those_are_longer() -> None:
    both = agreement(of(*steady(20, 8 * MS)), 0)
    assert both
    assert both.tolerance_s == pytest.approx(0.016)


def test_scattered_loss_disagrees_with_the_gap() -> None:
    # 40 single losses: 40 ms blocked, but no gap longer than 1 ms more than the interval.
    found = of(*steady(1000, MS, lost=range(0, 800, 20)))
    both = agreement(found, 0)
    assert both
    assert not both.agrees
    assert both.blocked_s == pytest.approx(0.040)
    assert both.outage_s == pytest.approx(0.001)
    figure = disagreement_figure(found, found.streams.everything(), Report())
    assert figure.value == pytest.approx(0.039)
    assert "disagree on 1 of 1" in figure.note


def test_sprayed_flow_is_compared_per_ev() -> None:
    # Four EVs, one packet per ms each; EV 2 is dead for its packets 25 … 74.
    sent, arrivals = steady(400, MS // 4, evs=4, lost=range(102, 302, 4))
    whole, evs = of(sent, arrivals), of(sent, arrivals, Level.EV)
    assert whole.outage_ns[0] < MS  # the other EVs fill the gap, so that the flow cannot show it
    dead = [agreement(evs, stream) for stream in range(4)]
    assert [a.agrees for a in dead if a] == [True] * 4
    assert [round(a.outage_s * 1000) for a in dead if a] == [0, 0, 50, 0]
    assert [round(a.blocked_s * 1000) for a in dead if a] == [0, 0, 50, 0]


@pytest.mark.parametrize(("lost", "cut"), [(range(900, 1000), True), (range(100), True), (range(400, 500), False)])
def test_an_outage_at_the_end_or_start_counts_and_is_a_lower_bound(lost: range, cut: bool) -> None:
    found = of(*steady(1000, MS, lost=lost))
    assert found.outage_ns[0] == pytest.approx(100 * MS)
    assert bool(found.cut[0]) is cut
    figure = list(outage_figures(found, found.streams.everything(), Report()))[1]
    assert figure.name == "outage"
    assert figure.at_least is cut


def test_nothing_arriving_is_an_outage_of_the_whole_run() -> None:
    found = of(steady(100, MS)[0], [])
    assert found.outage_ns[0] == pytest.approx(100 * MS)
    assert found.blocked_ns(ONE) == pytest.approx(100 * MS)
    assert found.cut[0]


def test_no_loss_is_no_outage() -> None:
    found = of(*steady(100, MS))
    assert found.outage_ns[0] == 0
    assert found.blocked_ns(ONE) == 0
    assert not found.cut[0]


def test_a_sender_that_pauses_is_told_from_a_path_that_does() -> None:
    sent, arrivals = steady(100, MS)
    sent = [s if s.seq < 50 else s._replace(t=s.t + 80 * MS) for s in sent]
    arrivals = [a if a.seq < 50 else a._replace(t=a.t + 80 * MS) for a in arrivals]
    found = of(sent, arrivals)
    figure = list(outage_figures(found, found.streams.everything(), Report()))[1]
    assert figure.resolution == pytest.approx(0.081)
    assert "not a constant rate" in figure.note


def test_one_packet_has_no_rate_and_so_no_outage() -> None:
    found = of([Sent(0, 0)], [])
    figures = list(outage_figures(found, found.streams.everything(), Report()))
    assert [f.value for f in figures] == [None, None]
    assert all("too few" in f.note for f in figures)
    assert disagreement_figure(found, found.streams.everything(), Report()).value is None


def test_the_rate_of_a_plane_is_that_of_its_flows_together() -> None:
    # Two flows, 1000 packets/s each: 2000 packets/s. 100 packets lost of one flow are 50 ms of the plane.
    sent = [Sent(n, n * MS + f * MS // 2, flow=f) for n in range(1000) for f in range(2)]
    arrivals = [Arrival(s.seq, s.t + MS, flow=s.flow) for s in sent if s.flow or not 300 <= s.seq < 400]
    found = outages(streams(match(samples(sent, arrivals, flows=("a>b", "c>d"))), Level.PLANE))
    blocked, outage = outage_figures(found, found.streams.scopes()[0], Report())
    assert blocked.scope == "plane 0"
    assert blocked.value == pytest.approx(0.050, rel=1e-3)
    assert outage.value == pytest.approx(0.100)
    assert "flow a>b plane 0" in outage.note
