"""MRC transfers over all planes, in good times and while switches, links and ports fail (paper §4)."""

from __future__ import annotations

import math
import random

import numpy as np
import numpy.typing as npt
import pytest

from testbed.experiment.capacity import surviving_capacity
from testbed.experiment.transfers import TransfersMeasured
from testbed.fabric.protocols import Fabric
from testbed.faults.catalogue import Faults
from testbed.lab import Lab, Tier
from testbed.measure.failover import placed_goodput
from testbed.pytest_plugin import Measure, Showing, unknown
from testbed.traffic.mrc.transfers import MrcTransfers
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone

MIB = 1 << 20
REBOOTS = 20
#: max(3 x unloaded round trip, 20 ms): the round trip of an idle laptop fabric is below 2 ms.
LIMIT_S = 0.020
#: After the first messages windows and round trips are settled, and the goodput of before a fault is known.
SETTLED_S = 1.0
#: A steady rate is judged in windows of this length.
STEADY_WINDOW_NS = 50_000_000
#: What breaks goodput for milliseconds shows in windows of this length, from so long after the first packet on.
FINE_WINDOW_NS = 5_000_000
WARM_NS = 300_000_000


def header_limited(lab: Lab, measured: TransfersMeasured) -> float:
    """What all planes of one pair can carry of payload, bit/s."""
    if lab.emulated_rate is None:
        pytest.skip("not run: this lab's links have no rate to compare with")
    return surviving_capacity(measured.flows, []) * lab.emulated_rate * measured.flows.payload_share


def assert_nothing_failed(measured: TransfersMeasured) -> None:
    """Every message arrived, each byte of it right."""
    assert measured.value("messages") > 0
    assert measured.value("messages_failed") == 0, "\n".join(measured.reasons)
    assert measured.value("mismatches") == 0, "\n".join(measured.reasons)


def assert_failed_over(measured: TransfersMeasured, failover_s: float, of: object = "") -> None:
    """Failover within its limit; a longer one is unknown where the machine breaks goodput without a fault, too."""
    undisturbed = measured.figure("failover_undisturbed")
    # Where nothing is known of it, as when EVs never come back, the failure stands.
    if failover_s > LIMIT_S and undisturbed.value:
        unknown(f"failover {failover_s:g} s {of}; without a fault {undisturbed.value} s: {undisturbed.note}")
    assert failover_s <= LIMIT_S, f"{of}; without a fault {undisturbed.value} s: {undisturbed.note}"


def steady(flows: MrcTransfers, begin_ns: int, end_ns: int) -> npt.NDArray[np.float64]:
    """Goodput in windows of 50 ms, bit/s; at least 3 of them."""
    found = placed_goodput(flows.outcome.arrivals, origin_ns=begin_ns, window_ns=STEADY_WINDOW_NS, end_ns=end_ns)
    assert len(found.bps) >= 3
    return found.bps


def show_steps(shown: Showing, steps: npt.NDArray[np.float64], of: str) -> None:
    """Goodput in windows of 50 ms."""
    shown.told(f"lowest 50 ms over {of}", float(steps.min()), "ratio")
    shown.told(f"highest 50 ms over {of}", float(steps.max()), "ratio")


def ask_the_machine(flows: MrcTransfers, fault_ns: int, line: float, found: str) -> None:
    """End the test as unknown where something broke goodput before the fault, too, be it for milliseconds."""
    began = int(flows.outcome.arrivals["t_ns"].min()) + WARM_NS
    fine = placed_goodput(flows.outcome.arrivals, origin_ns=began, window_ns=FINE_WINDOW_NS, end_ns=fault_ns).bps / line
    assert len(fine) >= 100
    if (fine < 0.9).any():
        unknown(f"{found}; without a fault {(fine < 0.9).sum()} of {len(fine)} windows of 5 ms are below 90%")


def across(fabric: Fabric) -> tuple[str, str]:
    """A pair of hosts that needs a T1."""
    hosts = fabric.lab.topology.hosts
    return hosts[0], hosts[-1]


def test_one_queue_pair_fills_every_plane(fabric: Fabric, traffic: Traffic, measure: Measure, shown: Showing) -> None:
    """Paper §4: point to point, 96% of the line rate is the header-limited ceiling; planes share it evenly."""
    flows = traffic.mrc([across(fabric)], message=MIB, depth=4)
    with flows.running():
        flows.go_on_for(3.0)
    measured = measure(flows)
    assert_nothing_failed(measured)
    goodput = measured.value("goodput")
    shown.told("goodput", goodput, "bit/s")
    shown.told("goodput over what headers leave", goodput / header_limited(fabric.lab, measured), "ratio")
    shown.told("imbalance of planes", measured.value("plane_imbalance"), "ratio")
    shown.explained(measured)
    assert goodput >= 0.95 * header_limited(fabric.lab, measured)
    assert measured.value("plane_imbalance") <= 1.02
    assert measured.value("reordered") > 0
    assert measured.value("lost") == 0
    assert measured.value("evs_retired") == 0


@pytest.mark.requires("reboot")
def test_t1_reboots_fail_no_message(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing
) -> None:
    """Paper §4: a dip at the onset only; the reboot itself has no effect.

    Of 20 reboots no message fails. In 95% of them the sender has named a dead EV within 20 ms, and goodput is back at
    90% of what the surviving paths can carry, in windows of 5 ms, within 20 ms of the first packet lost. Nearly
    all that is sent again was lost.
    """
    flows = traffic.mrc([across(fabric)], message=MIB, depth=4)
    t1s = sorted({node for path in flows.paths for node in path.nodes if fabric.lab.topology.tier(node) is Tier.T1})
    chosen = random.Random(flows.seed).choices(t1s, k=REBOOTS)
    reboots = []
    with flows.running():
        flows.go_on_for(SETTLED_S)
        for switch in chosen:
            with faults.reboot(switch) as reboot:
                reboot.wait("forwarding")
            reboots.append(reboot)
            flows.go_on_for(0.15)
    measured = measure(flows, *reboots)
    assert_nothing_failed(measured)
    shown.told(f"packets lost in {REBOOTS} reboots", measured.value("lost"), "packets")
    shown.explained(measured)
    assert measured.value("lost") >= REBOOTS
    again = flows.outcome.counters["duplicate_request"]
    assert again <= 0.05 * measured.value("lost"), f"{again} packets that had arrived were sent again"
    for name in ("failover", "detect"):
        times = sorted(figure.value for figure in measured.figures if figure.name == name and figure.value is not None)
        assert len(times) == REBOOTS, f"{name} is unknown in {REBOOTS - len(times)} of {REBOOTS}"
        p95 = times[math.ceil(0.95 * REBOOTS) - 1]
        shown.told(f"{name}, 95% of {REBOOTS} reboots", p95, "s")
        if name == "failover":
            assert_failed_over(measured, p95, times)
        assert p95 <= LIMIT_S, f"{name}: {times}"


@pytest.mark.requires("reboot")
def test_a_t0_down_costs_one_plane(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing
) -> None:
    """Paper §4: one of eight planes, steadily, and all of them again afterwards."""
    flows = traffic.mrc([across(fabric)], message=MIB, depth=4)
    with flows.running():
        flows.go_on_for(SETTLED_S)
        with faults.reboot(fabric.t0(carrying=flows)) as reboot:
            reboot.wait("forwarding")
        flows.go_on_for(1.0)
    measured = measure(flows, reboot)
    assert_nothing_failed(measured)
    shown.told("failover", measured.value("failover"), "s")
    shown.told("restore", measured.value("restore"), "s")
    shown.explained(measured)
    assert_failed_over(measured, measured.value("failover"))
    assert measured.value("restore") <= 0.5
    (outage,) = reboot.outages()
    all_planes = header_limited(fabric.lab, measured)
    left = all_planes * surviving_capacity(flows, [outage]) / surviving_capacity(flows, [])
    settled = outage.start_hi + round(LIMIT_S * 1e9)
    assert left == pytest.approx(all_planes * 7 / 8)
    steps = steady(flows, settled, outage.end_lo) / left
    show_steps(shown, steps, "the planes that are left")
    if (steps < 0.95).any():
        ask_the_machine(flows, outage.start_lo, all_planes, f"of {left:.4g} bit/s: {steps}")
    assert (steps >= 0.95).all(), f"of {left:.4g} bit/s: {steps}"
    assert (steps <= 1.02).all(), f"of {left:.4g} bit/s: {steps}"


@pytest.mark.requires("gray-loss")
def test_a_lossy_ev_is_retired_at_once_and_the_rate_held(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing
) -> None:
    """Paper §4: 20% loss on one EV of 16, two a plane: retired at once and replaced, the line rate held."""
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst)], message=MIB, depth=4)
    ev = flows.evs[src, dst][1]
    with flows.running():
        flows.go_on_for(SETTLED_S)
        with faults.loss(f"{src}>{dst}:{ev:#06x}", share=0.2) as loss:
            flows.go_on_for(1.0)
    measured = measure(flows, loss)
    assert_nothing_failed(measured)
    assert len(flows.evs[src, dst]) == 16
    began, ended = loss.observed, loss.healed
    assert began is not None
    assert ended is not None
    retired = [change for change in flows.outcome.ev_changes if change.what == "assumed bad"]
    assert {change.subject for change in retired} == {f"flow {src}>{dst} ev 0x{ev:04x}"}
    lost = measured.matched.t_sent[measured.matched.lost]
    shown.told("from the first loss to the EV retired", (retired[0].t_ns - int(lost.min())) * 1e-9, "s")
    shown.told("packets lost over packets sent", measured.value("lost") / len(flows.outcome.samples.sent), "ratio")
    shown.explained(measured)
    assert (retired[0].t_ns - int(lost.min())) * 1e-9 <= LIMIT_S
    # Now and then its probes get through by luck: it is used until the next loss. With none retired 1 in 80 were lost.
    assert measured.value("lost") <= 0.005 * len(flows.outcome.samples.sent)
    line = header_limited(fabric.lab, measured)
    steps = steady(flows, began.t_ns, ended.t_ns) / line
    show_steps(shown, steps, "the line")
    if (steps < 0.95).any():
        ask_the_machine(flows, began.t_ns, line, f"of {line:.4g} bit/s: {steps}")
    assert (steps >= 0.95).all(), f"of {line:.4g} bit/s: {steps}"


@pytest.mark.requires("link-down")
def test_a_nic_port_down_is_noticed_at_both_ends(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing
) -> None:
    """Paper §4: queue pairs work on with one plane fewer. Both ends stop using the plane within 10 ms."""
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst), (dst, src)], message=MIB // 4, depth=4)
    link = next(link for link in fabric.lab.topology.links if link.name.startswith(f"{src}:"))
    with flows.running():
        flows.go_on_for(SETTLED_S)
        with faults.link_down(link) as cut:
            went = cut.wait("carrier lost")
            flows.go_on_for(0.5)
        flows.go_on_for(0.5)
    measured = measure(flows, cut)
    assert_nothing_failed(measured)
    for flow in flows.flows:
        noticed = [
            change
            for change in flows.outcome.ev_changes
            if change.subject == f"flow {flow} plane {link.plane}" and change.what == "port down"
        ]
        assert noticed, f"{flow} never stopped using plane {link.plane}"
        shown.told(f"{flow}, from the carrier lost to the plane left", (noticed[0].t_ns - went.t_ns) * 1e-9, "s")
        assert (noticed[0].t_ns - went.t_ns) * 1e-9 <= 0.010
