"""Ports, links and switches that go down, flap and reboot under transfers."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from testbed.fabric.protocols import Fabric
from testbed.faults.catalogue import Faults
from testbed.pytest_plugin import Measure, Showing
from testbed.qualify.checks import across, changes, core_links, goodput, line_rate, nothing_failed, retired, uplinks
from testbed.record import Event
from testbed.traffic.mrc.transfers import MrcTransfers
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone

LOAD = {"message": 64 * 1024, "depth": 2}
#: Full rate: as much outstanding as fills every plane.
FULL = {"message": 1 << 20, "depth": 4}
#: Both ends stop using a plane within this: a time of this software, unscaled; the paper gives < 1 s for its testbed.
REMAP_S = 0.010
#: The paper samples its dips at about 200 ms.
SAMPLE_NS = 200_000_000


def first(flows: MrcTransfers, what: str, subject: str, after: Event) -> float:
    """Seconds from an event to a sender's change."""
    found = [one for one in changes(flows, what, subject) if one.t_ns >= after.t_ns - after.uncertainty_ns]
    if not found:
        pytest.fail(f"no port status came: {subject} was never {what}", pytrace=False)
    return (found[0].t_ns - after.t_ns) * 1e-9


@pytest.mark.requires("link-down")
@pytest.mark.parametrize("qps", [1, 4, 16])
def test_a_port_down_is_known_at_both_ends_whatever_the_number_of_queue_pairs(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing, qps: int
) -> None:
    """Point 7: local and remote remap against the number of queue pairs. Paper: < 1 s; seconds in production."""
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst), (dst, src)], message=16 * 1024, depth=1, qps=qps)
    link = uplinks(fabric, src)[0]
    with flows.running():
        flows.go_on_for(0.3)
        with faults.link_down(link) as cut:
            went = cut.wait("carrier lost")
            flows.wait_messages(4 * qps)
            flows.go_on_for(0.2)
        flows.wait_messages(4 * qps)
    nothing_failed(shown, flows)
    after = {flow: first(flows, "port down", f"flow {flow} plane {link.plane}", went) for flow in flows.flows}
    for end in (src, dst):
        slowest = max(taken for flow, taken in after.items() if flow.startswith(f"{end}>"))
        where = "local" if end == src else "remote"
        shown.at_most(f"{where} remap of {qps} queue pairs", slowest, REMAP_S, "s", timed=flows)
    shown.explained(measure.take(flows, cut))


@pytest.mark.requires("link-down")
def test_ports_taken_down_one_by_one_and_back(fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing) -> None:
    """Paper §4: NIC–T0 ports taken down one by one: stepwise drop and recovery. No message fails on the last plane."""
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst)], **FULL)  # type: ignore[arg-type]
    ports = uplinks(fabric, src)[: max(fabric.lab.planes - 1, 1)]
    edges: list[tuple[int, int]] = []
    with flows.running(), ExitStack() as down:
        flows.go_on_for(0.6)
        for number, link in enumerate(ports, 1):
            went = down.enter_context(faults.link_down(link)).wait("carrier lost")
            edges.append((went.t_ns, number))
            flows.go_on_for(0.4)
        down.close()
        flows.go_on_for(0.4)
    nothing_failed(shown, flows)
    outcome = flows.outcome
    sent = outcome.sent
    for at, number in edges:
        gone = [link.plane for link in ports[:number]]
        within = (sent["t_ns"] > at + 20_000_000) & (sent["t_ns"] < at + 380_000_000)
        strays = int(np.isin(sent["plane"][within], gone).sum())
        shown.equal(f"packets sent by the {number} ports that are down", strays, 0, "packets", timed=flows)
    whole = line_rate(fabric, flows)
    if whole is None:
        pytest.skip("not run: this lab's links have no rate to compare with")
    planes = fabric.lab.planes
    for at, number in edges:
        mean = float(goodput(flows, at + 100_000_000, at + 400_000_000, 100_000_000).mean())
        left = whole * (planes - number) / planes
        shown.at_least(
            f"goodput of {planes - number} planes over what they carry", mean / left, 0.85, "ratio", timed=flows
        )


@pytest.mark.requires("link-down")
def test_half_of_the_nic_links_flap(fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing) -> None:
    """Paper §4: 4 of 8 NIC links flap: about 50% meanwhile, and all at once afterwards."""
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst)], **FULL)  # type: ignore[arg-type]
    half = uplinks(fabric, src)[: max(fabric.lab.planes // 2, 1)]
    if len(half) == fabric.lab.planes:
        pytest.skip("not run: a host with one port has no half of them")
    with flows.running():
        flows.go_on_for(0.6)
        with ExitStack() as flapping:
            scopes = [flapping.enter_context(faults.flap(link, period=0.2)) for link in half]
            flows.go_on_for(1.2)
        flows.go_on_for(0.8)
    nothing_failed(shown, flows)
    shown.told("times links went down", sum(len(scope.outages()) for scope in scopes), "count")
    line = line_rate(fabric, flows)
    if line is None:
        return
    began = min(scope.observed.t_ns for scope in scopes if scope.observed is not None)
    ended = max(scope.healed.t_ns for scope in scopes if scope.healed is not None)
    during = float(goodput(flows, began, ended, SAMPLE_NS).mean()) / line
    after = float(goodput(flows, ended + SAMPLE_NS, ended + 3 * SAMPLE_NS, SAMPLE_NS).mean()) / line
    shown.at_least("goodput while they flap over the line", during, 0.45, "ratio", timed=flows)
    shown.at_least("goodput afterwards over the line", after, 0.9, "ratio", timed=flows)


@pytest.mark.requires("link-down")
def test_core_links_cut_one_after_the_other_and_several_at_once(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing
) -> None:
    """Paper §4: 20 T0–T1 links cut 1 s apart, 8 flapped at once: negligible at ~200 ms sampling.

    Here as many as leave a path: every second link of one T0, and of these all at once. The limit is a dip of a quarter
    beyond the links that are gone, in any window of 200 ms.
    """
    flows = traffic.mrc([across(fabric)], **FULL)  # type: ignore[arg-type]
    chosen = core_links(fabric, flows)[::4]
    with flows.running():
        flows.go_on_for(0.6)
        for link in chosen:
            with faults.link_down(link):
                flows.go_on_for(0.2)
        with ExitStack() as flapping:
            scopes = [flapping.enter_context(faults.link_down(link)) for link in chosen]
            flows.go_on_for(0.4)
        flows.go_on_for(0.6)
    nothing_failed(shown, flows)
    measured = measure.take(flows, *scopes)
    shown.explained(measured)
    shown.told("links cut", len(chosen), "count")
    whole = line_rate(fabric, flows)
    if whole is None:
        return
    outages = tuple(outage for scope in scopes for outage in scope.outages())
    left = line_rate(fabric, flows, outages) or whole
    began, ended = min(one.start_lo for one in outages), max(one.end_hi for one in outages)
    lowest = float(goodput(flows, began, ended, SAMPLE_NS).min())
    shown.at_least("lowest 200 ms while all are cut, over what is left", lowest / left, 0.75, "ratio", timed=flows)


@pytest.mark.requires("link-down")
@pytest.mark.parametrize("per_minute", [14, 120, 600])
def test_a_core_link_flaps(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing, per_minute: int
) -> None:
    """Paper §4: T0–T1 flaps, up to 14 a minute over 250 minutes: almost no impact. Point 8: the rate of flaps is swept.

    At 14 a minute one flap is waited for; at the others as many as fit into 2 s.
    """
    flows = traffic.mrc([across(fabric)], **LOAD)  # type: ignore[arg-type]
    link = core_links(fabric, flows)[0]
    period = 60.0 / per_minute
    with flows.running():
        flows.go_on_for(0.3)
        with faults.flap(link, per_minute=per_minute, duty=min(0.5, 0.25 / period)) as flap:
            flows.go_on_for(0.6 if per_minute < 60 else 2.0)
        flows.wait_messages(10)
    nothing_failed(shown, flows)
    shown.at_least("times the link went down", len(flap.outages()), 1, "count")
    measured = measure.take(flows, flap)
    sent = max(len(flows.outcome.samples.sent), 1)
    shown.told("packets lost over packets sent", float(measured.matched.lost.sum()) / sent, "ratio")
    shown.explained(measured)


@pytest.mark.requires("gray-loss")
def test_a_t1_that_stops_forwarding_with_its_links_up(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing
) -> None:
    """Paper §4: a T1 stopped forwarding: a quarter of queue pairs hit, 580K packets lost, a dip at the onset only.

    Links and control stay up, so only losses tell. After a round trip of evidence nothing more is lost but probes.
    """
    pairs = [across(fabric), tuple(reversed(across(fabric)))]
    flows = traffic.mrc(pairs, **LOAD)  # type: ignore[arg-type]
    with flows.running():
        flows.go_on_for(0.3)
        with faults.frozen(fabric.t1(carrying=flows)) as frozen:
            flows.wait_messages(30)
            flows.go_on_for(0.7)
        flows.wait_messages(10)
    nothing_failed(shown, flows)
    began = frozen.observed
    assert began is not None
    measured = measure.take(flows, frozen)
    matched = measured.matched
    late = matched.lost & (matched.t_sent > began.t_ns + 500_000_000)
    shown.told("packets lost", int(matched.lost.sum()), "packets")
    shown.equal("of these sent more than 0.5 s after the onset", int(late.sum()), 0, "packets", timed=flows)
    shown.at_least("EVs retired", len(retired(flows)), 1, "count")
    shown.explained(measured)


@pytest.mark.requires("link-down")
def test_a_t0_transceiver_flaps(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing
) -> None:
    """Paper §4: a transceiver of a T0, four links, in a job of 50K: 25% lost for a minute, full recovery, no QP failed.

    Here the links of one T0 to all its T1s, which is all that the T0 has upwards.
    """
    flows = traffic.mrc([across(fabric)], **LOAD)  # type: ignore[arg-type]
    t0 = fabric.t0(carrying=flows).name
    links = [link for link in core_links(fabric, flows) if t0 in (link.a.node, link.b.node)]
    with flows.running():
        flows.go_on_for(0.3)
        with ExitStack() as down:
            scopes = [down.enter_context(faults.link_down(link)) for link in links]
            flows.wait_messages(20)
            flows.go_on_for(0.5)
        flows.wait_messages(10)
        flows.go_on_for(0.5)
    nothing_failed(shown, flows)
    ended = max(scope.healed.t_ns for scope in scopes if scope.healed is not None)
    plane = fabric.lab.topology.plane_of(t0)
    sent = flows.outcome.sent
    again = int(((sent["plane"] == plane) & (sent["t_ns"] > ended)).sum())
    shown.at_least("packets of its plane after it is back", again, 1, "packets", timed=flows)
    shown.explained(measure.take(flows, *scopes))


@pytest.mark.requires("link-down")
def test_a_nics_own_transceiver_flaps(fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing) -> None:
    """Paper §4: not survivable there: all ports share it, queue pairs fail. Here the retries of the ACK timer decide.

    A flap that is shorter than the retries must be survived; the paper's NIC does not give its own.
    """
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst)], **LOAD)  # type: ignore[arg-type]
    down_s = 2 * flows.settings.ack_timeout_ns * 1e-9
    with flows.running():
        flows.go_on_for(0.3)
        with faults.transceiver_flap(src, down=down_s) as flap:
            flap.wait("carrier back", timeout_s=30.0)
        flows.wait_messages(5)
    shown.told("all ports down for", down_s, "s")
    nothing_failed(shown, flows)


@pytest.mark.requires("reboot", "control")
def test_a_warm_reboot_loses_nothing(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing
) -> None:
    """Point 14: agents and network operating systems restart; what is in the tables forwards on."""
    flows = traffic.mrc([across(fabric)], **LOAD)  # type: ignore[arg-type]
    with flows.running():
        flows.go_on_for(0.3)
        with faults.reboot(fabric.t1(carrying=flows), kind="warm") as reboot:
            reboot.wait("control back", timeout_s=60.0)
        flows.wait_messages(5)
    nothing_failed(shown, flows)
    measured = measure.take(flows, reboot)
    shown.equal("packets lost", int(measured.matched.lost.sum()), 0, "packets", timed=flows)
    shown.explained(measured)
