"""NSCC's windows on a fabric: what its knobs do to a queue, and what a last hop that does not mark leaves it with."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from testbed.fabric.protocols import Fabric
from testbed.mrc.settings import Settings
from testbed.pytest_plugin import Showing, unknown
from testbed.qualify.checks import across, delays_s, mean_goodput, nothing_failed
from testbed.traffic.mrc.settings import settings_for
from testbed.traffic.mrc.transfers import MrcTransfers
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone

FULL = {"message": 256 * 1024, "depth": 4}
RUN_S = 1.5
#: By then windows have settled.
SETTLED_S = 0.5


def with_target(settings: Settings, share: float) -> Settings:
    return replace(settings, nscc=replace(settings.nscc, target_delay_ns=round(settings.nscc.target_delay_ns * share)))


def with_window(settings: Settings, share: float) -> Settings:
    nscc = settings.nscc
    most = max(round(nscc.max_cwnd * share), nscc.min_cwnd)
    return replace(settings, nscc=replace(nscc, max_cwnd=most, initial_cwnd=min(nscc.initial_cwnd, most)))


def waits(flows: MrcTransfers) -> float:
    """Median of packets' delays over all flows, once windows have settled, seconds."""
    delays = np.concatenate([delays_s(flows, number, SETTLED_S) for number in range(len(flows.flows))])
    if delays.size < 100:
        unknown(f"{delays.size} packets arrived after {SETTLED_S:g} s, and a median needs 100")
    return float(np.median(delays))


def falling(shown: Showing, delays: list[float], flows: MrcTransfers, what: str) -> None:
    """Each delay is at most nine tenths of the one before."""
    largest = max(later / earlier for earlier, later in pairwise(delays))
    shown.at_most(f"delay at {what}, over the one before", largest, 0.9, "ratio", timed=flows)


@pytest.mark.requires("ecn", "rate")
def test_a_smaller_target_delay_is_a_shorter_queue(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """Point 10: a sweep of ``target_delay``. Two senders share one path, which marks: they settle near the target."""
    hosts = fabric.lab.topology.hosts
    first, second = across(fabric), (hosts[1], hosts[-2])
    if fabric.lab.shape.hosts_per_t0 < 2:
        pytest.skip("not run: two senders on one T0 are needed")
    ev = fabric.addresses.evs(*first)[0]
    if ev not in fabric.addresses.evs(*second):
        pytest.skip("not run: these pairs share no path")
    delays = []
    for share in (1.0, 0.5, 0.25):
        settings = with_target(settings_for(fabric.lab), share)
        flows = traffic.mrc([first, second], evs=[ev], settings=settings, **FULL)  # type: ignore[arg-type]
        with flows.running():
            flows.go_on_for(RUN_S)
        nothing_failed(shown, flows)
        delays.append(waits(flows))
        shown.told(f"target {share:g}: delay", delays[-1], "s")
        shown.told(f"target {share:g}: goodput", mean_goodput(flows), "bit/s")
        marks = int(((flows.outcome.arrivals["flags"] & 2) != 0).sum())
        shown.at_least(f"target {share:g}: marks", marks, 1, "packets", timed=flows)
    falling(shown, delays, flows, "half the target")


@pytest.mark.requires("rate")
def test_a_smaller_window_is_a_shorter_queue(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """Point 10: a sweep of ``max_cwnd``. A sender alone meets no marks: its largest window is what stands in queues."""
    delays = []
    for share in (1.0, 0.5, 0.25):
        settings = with_window(settings_for(fabric.lab), share)
        flows = traffic.mrc([across(fabric)], settings=settings, **FULL)  # type: ignore[arg-type]
        with flows.running():
            flows.go_on_for(RUN_S)
        nothing_failed(shown, flows)
        delays.append(waits(flows))
        shown.told(f"window {share:g}: delay", delays[-1], "s")
        shown.told(f"window {share:g}: goodput", mean_goodput(flows), "bit/s")
    falling(shown, delays, flows, "half the window")


@pytest.mark.requires("ecn", "rate")
def test_the_last_hop_does_not_mark(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """Point 10: ECN is off at the last hop. Hosts of one T0 fill the link of another: delay tells them, no mark does.

    There a mark would only tell every sender to leave paths that all end in the same link. The queue is longer than
    what a port between switches marks from on, so that marks would be seen.
    """
    rate, threshold = fabric.lab.emulated_rate, fabric.lab.ecn_bytes
    assert rate is not None
    assert threshold is not None
    per_t0 = fabric.lab.shape.hosts_per_t0
    if per_t0 < 3:
        pytest.skip("not run: three hosts on one T0 are needed")
    *senders, receiver = fabric.lab.topology.hosts[:per_t0]
    flows = traffic.mrc([(sender, receiver) for sender in senders], **FULL)  # type: ignore[arg-type]
    with flows.running():
        flows.go_on_for(RUN_S)
    nothing_failed(shown, flows)
    rates = [mean_goodput(flows, number) for number in range(len(senders))]
    shown.told("senders", len(senders), "count")
    shown.told("slowest over fastest", min(rates) / max(max(rates), 1.0), "ratio")
    marking_s = threshold * 8 / rate
    shown.at_least("delay over what marks between switches", waits(flows) / marking_s, 1.0, "ratio", timed=flows)
    marks = int(((flows.outcome.arrivals["flags"] & 2) != 0).sum())
    shown.equal("marked arrivals", marks, 0, "packets")
