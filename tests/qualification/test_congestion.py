"""Congestion: shared paths, incast beside a victim, fewer and slower uplinks; and what MRC gains over one path."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest

from testbed.errors import InfrastructureError
from testbed.fabric.protocols import Fabric
from testbed.faults.catalogue import Faults
from testbed.pytest_plugin import Showing, unknown
from testbed.qualify.checks import across, core_links, line_rate, mean_goodput, nothing_failed, room_for_every_host
from testbed.traffic.mrc.settings import roce_like, settings_for
from testbed.traffic.mrc.transfers import MrcTransfers
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone

FULL = {"message": 256 * 1024, "depth": 4}


def ran(flows: MrcTransfers, seconds: float) -> MrcTransfers:
    """Transfers for a while; where not one message of each completes, the machine cannot carry so many."""
    try:
        with flows.running():
            flows.go_on_for(seconds)
    except InfrastructureError as error:
        unknown(f"{len(flows.flows)} queue pairs at once: {error.message}")
    return flows


def slowest_pair(flows: MrcTransfers) -> float:
    """Goodput of the pair of hosts that has the least, all its queue pairs together, bit/s."""
    found = Counter[tuple[str, str]]()
    for number, pair in enumerate(flows.pairs):
        found[pair] += round(mean_goodput(flows, number))
    return float(min(found.values()))


@pytest.mark.requires("ecn")
def test_two_flows_on_one_ev(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """Paper §4: two flows forced on one EV: ECN moves one of them, no loss of rate. One has no other EV here.

    The other must put less there than half of an even share of its packets.
    """
    hosts, per_t0 = fabric.lab.topology.hosts, fabric.lab.shape.hosts_per_t0
    if per_t0 < 2:
        pytest.skip("not run: two senders on one T0 are needed")
    pinned, free = (hosts[0], hosts[-1]), (hosts[1], hosts[-2])
    shared = fabric.addresses.evs(*pinned)[0]
    others = fabric.addresses.evs(*free)
    if shared not in others or len(others) < 4:
        pytest.skip("not run: these pairs share no path, or have too few to move to")
    flows = ran(traffic.mrc([pinned, free], evs={pinned: [shared]}, **FULL), 2.0)  # type: ignore[arg-type]
    nothing_failed(shown, flows)
    used = flows.outcome.sent["ev"][flows.outcome.sent["flow"] == 1]
    share = float((used == shared).mean()) * len(others)
    shown.at_least(
        "marked arrivals", int(((flows.outcome.arrivals["flags"] & 2) != 0).sum()), 1, "packets", timed=flows
    )
    shown.at_most("packets on the shared EV over an even share", share, 0.75, "ratio", timed=flows)


def test_an_incast_leaves_a_victim_alone(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """Paper §4: 7:1 incast beside a victim on the same T0: untouched (DCQCN −25% to −75%). We ask 85% of it alone.

    Point 10. The senders are as many as the lab has hosts for.
    """
    room_for_every_host(fabric)
    crowd = traffic.mrc("incast", **FULL)  # type: ignore[arg-type]
    victim = len(crowd.pairs) - 1
    alone = mean_goodput(ran(traffic.mrc([crowd.pairs[victim]], **FULL), 1.0))  # type: ignore[arg-type]
    ran(crowd, 1.5)
    nothing_failed(shown, crowd)
    beside = mean_goodput(crowd, victim)
    shown.told("senders of the incast", victim, "count")
    shown.told("victim alone", alone, "bit/s")
    shown.told("victim beside the incast", beside, "bit/s")
    shown.at_least("victim beside the incast over alone", beside / max(alone, 1.0), 0.85, "ratio", timed=crowd)
    hashed = traffic.mrc("incast", settings=roce_like(settings_for(fabric.lab)), **FULL)  # type: ignore[arg-type]
    shown.told("the same, flow-hashed with go-back-N", mean_goodput(ran(hashed, 1.0), victim), "bit/s")


@pytest.mark.requires("link-down")
def test_all_but_one_uplink_of_a_t0_fail(fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing) -> None:
    """Paper §4: 3 of 4 uplinks failed: no dip where the one that is left is fast enough."""
    flows = traffic.mrc([across(fabric)], **FULL)  # type: ignore[arg-type]
    t0 = fabric.t0(carrying=flows).name
    links = [link for link in core_links(fabric, flows) if t0 in (link.a.node, link.b.node)]
    if len(links) < 2:
        pytest.skip("not run: a T0 needs two uplinks")
    with flows.running():
        flows.go_on_for(0.6)
        with ExitStack() as down:
            scopes = [down.enter_context(faults.link_down(link)) for link in links[1:]]
            flows.go_on_for(1.0)
    nothing_failed(shown, flows)
    outages = tuple(outage for scope in scopes for outage in scope.outages())
    left = line_rate(fabric, flows, outages)
    if left is None:
        return
    began, ended = max(one.start_hi for one in outages), min(one.end_lo for one in outages)
    arrivals = flows.outcome.arrivals
    within = (arrivals["t_ns"] >= began + 200_000_000) & (arrivals["t_ns"] < ended)
    placed = arrivals[within & ((arrivals["flags"] & 4) != 0)]
    rate = float(placed["bytes"].sum()) * 8e9 / max(ended - began - 200_000_000, 1)
    shown.at_least("goodput over what is left", rate / left, 0.85, "ratio", timed=flows)


@pytest.mark.requires("rate", "ecn")
def test_uplinks_of_unequal_speed(fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing) -> None:
    """Point 12: a T0–T1 link at a quarter of the others' speed: its EVs carry less, and no message fails."""
    rate = fabric.lab.emulated_rate
    assert rate is not None
    flows = traffic.mrc([across(fabric)], **FULL)  # type: ignore[arg-type]
    slow = core_links(fabric, flows)[0]
    with flows.running():
        flows.go_on_for(0.3)
        with faults.rate(slow, rate / 4):
            flows.go_on_for(1.5)
    nothing_failed(shown, flows)
    planes = {path.plane for path in flows.paths if any(link.name == slow.name for link in path.links)}
    on = {ev for (_, ev), path in flows.path_of.items() if any(link.name == slow.name for link in path.links)}
    sent = flows.outcome.sent
    beside = np.isin(sent["plane"], list(planes)) & ~np.isin(sent["ev"], list(on))
    ratio = float(np.isin(sent["ev"], list(on)).sum()) / max(int(beside.sum()), 1)
    shown.at_most("packets by the slow link over those beside it", ratio, 0.9, "ratio", timed=flows)


@pytest.mark.parametrize("qps", [1, 4, 16])
def test_mrc_beside_flows_that_keep_to_one_path(fabric: Fabric, traffic: Traffic, shown: Showing, qps: int) -> None:
    """Paper §4, permutation and ring: one queue pair of MRC against RoCE with 1 to 16, in the same run.

    In turns on the same fabric: MRC with one queue pair a pair of hosts, then flow-hashed queue pairs with go-back-N,
    as many messages outstanding in all.
    MRC must be no slower; with one queue pair it has several paths where the other has one.
    """
    settings, message = roce_like(settings_for(fabric.lab)), 64 * 1024
    one = ran(traffic.mrc("permutation", message=message, depth=16), 1.0)
    other = ran(traffic.mrc("permutation", message=message, depth=max(16 // qps, 1), qps=qps, settings=settings), 1.0)
    nothing_failed(shown, one)
    shown.equal("messages wrong, flow-hashed", sum(each.mismatches for each in other.outcome.messages), 0, "count")
    mrc, hashed = mean_goodput(one), mean_goodput(other)
    shown.told("MRC, one queue pair", mrc, "bit/s")
    shown.told(f"flow-hashed, {qps} queue pairs", hashed, "bit/s")
    shown.told("MRC, the slowest pair of hosts", slowest_pair(one), "bit/s")
    shown.told("flow-hashed, the slowest pair of hosts", slowest_pair(other), "bit/s")
    # Sixteen hashed flows may come near it: no slower than nine tenths of them.
    shown.at_least("MRC over flow-hashed", mrc / max(hashed, 1.0), 0.9, "ratio", timed=one)
    # Where hashes fall together a pair gets a half or a third; where they happen not to, as much as MRC.
    ratio = slowest_pair(one) / max(slowest_pair(other), 1.0)
    shown.at_least("MRC over flow-hashed, the slowest pairs", ratio, 0.9, "ratio", timed=one)


@pytest.mark.requires("gray-loss")
@pytest.mark.parametrize("share", [0.001, 0.01])
def test_uniform_loss_beside_go_back_n(
    fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing, share: float
) -> None:
    """Paper §4: 0.1% loss everywhere has little effect; at 1% MRC is at about a third, RoCE unusable.

    What a loss costs is counted: MRC sends the lost packets again, go-back-N all behind them.
    """
    again = {}
    for name, settings in (("MRC", settings_for(fabric.lab)), ("go-back-N", roce_like(settings_for(fabric.lab)))):
        flows = traffic.mrc([across(fabric)], settings=settings, **FULL)  # type: ignore[arg-type]
        with flows.running(), ExitStack() as lossy:
            for link in core_links(fabric, flows):
                lossy.enter_context(faults.loss(link, share=share, direction="up"))
            flows.go_on_for(1.0)
        shown.equal(f"messages wrong, {name}", sum(one.mismatches for one in flows.outcome.messages), 0, "count")
        again[name] = flows.outcome.counters["mrc_retransmits"] / max(len(flows.outcome.samples.sent), 1)
        shown.told(f"{name}: goodput", mean_goodput(flows), "bit/s")
        shown.told(f"{name}: packets sent again over packets sent", again[name], "ratio")
    if share >= 0.01:
        shown.at_most(
            "sent again, MRC over go-back-N", again["MRC"] / max(again["go-back-N"], 1e-9), 0.8, "ratio", timed=flows
        )


@pytest.mark.parametrize("evs", ["one EV a plane", "all EVs"])
def test_a_ring_all_reduce_under_faults(
    fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing, evs: str
) -> None:
    """Point 15: a collective, with a schedule of random faults; tails told.

    A ring has one queue pair a neighbour; what is varied in place of their number is how many EVs each sprays over.
    """
    few = fabric.lab.planes if evs == "one EV a plane" else None
    flows = traffic.mrc("ring-all-reduce", message=32 * 1024, evs_per_qp=few)
    with flows.running():
        with faults.nemesis(2.0, seed=flows.seed, weights={"link_down": 1.0}):
            flows.go_on_for(2.0)
        flows.wait_messages(len(flows.pairs))
    nothing_failed(shown, flows)
    rounds = np.array([ns for each in flows.outcome.rounds_ns.values() for ns in each])
    if rounds.size:
        shown.told("rounds", int(rounds.size), "count")
        shown.told("round, median", float(np.median(rounds)) * 1e-9, "s")
        shown.told("round, longest", float(rounds.max()) * 1e-9, "s")
