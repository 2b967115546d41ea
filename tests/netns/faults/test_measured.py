"""What faults cost, measured: dead paths are explained to the packet, and a partial loss is no outage."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from testbed.experiment.measurement import measure
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.faults.scope import FaultScope
from testbed.measure.limits import Outcome
from testbed.traffic.path_probes import PathProbes
from tests.netns.conftest import QUICK_REBOOT, TINY, realise

#: Each, and the paths of h0>h1 (by EV) and h1>h0 that it kills.
DEADLY: dict[str, tuple[Callable[[Faults], FaultScope], set[tuple[int, int]]]] = {
    "one way": (lambda f: f.one_way_down("p0-t0-0~p0-t1-0", "up"), {(0, 0x0)}),
    "black hole": (lambda f: f.blackhole("p0-t1-0", "p0-t0-1"), {(0, 0x0)}),
    "black hole of a port": (lambda f: f.blackhole("p0-t0-1", "h1:p0"), {(0, 0x0), (0, 0x8)}),
    "misroute": (lambda f: f.misroute("p0-t0-1", "p0-t1-0", "t1-1"), {(1, 0x0)}),
    "frozen": (lambda f: f.frozen("p0-t1-0"), {(0, 0x0), (1, 0x0)}),
    "one EV": (lambda f: f.loss("h0>h1:0x008"), {(0, 0x8)}),
    # Probes come from the NIC's address; MRC's packets come from the port's.
    "one EV further on": (lambda f: f.loss("p0-t1-1:t0-0", ev="h0>h1:0x008"), {(0, 0x8)}),
    "one uSID": (lambda f: f.loss("p0-t0-0:d0", usid="p0-t1-1"), {(0, 0x8)}),
    "a NIC's port": (lambda f: f.nic_port_down("h1:p1"), {(0, 0x1), (0, 0x9), (1, 0x1), (1, 0x9)}),
    "no power": (lambda f: f.power_loss("p1-t1-1"), {(0, 0x9), (1, 0x9)}),
    "flap": (lambda f: f.flap("p0-t0-0~p0-t1-0", period="60ms", count=2), {(0, 0x0), (1, 0x0)}),
}


@pytest.fixture(scope="module")
def fabric() -> Iterator[NetnsFabric]:
    limits = 'limits: {failover: "<= 50 s", loss_ratio: "<= 99 %"}\n'
    with realise(TINY + QUICK_REBOOT + limits) as made:
        yield made


@pytest.mark.parametrize(("make", "killed"), DEADLY.values(), ids=DEADLY)
def test_exactly_the_paths_that_a_fault_kills_lose_packets_and_all_is_explained(
    fabric: NetnsFabric, make: Callable[[Faults], FaultScope], killed: set[tuple[int, int]]
) -> None:
    flows = PathProbes(fabric, [("h0", "h1"), ("h1", "h0")], rate=800)
    with flows.running():
        flows.wait_rounds(2)
        with make(Faults(fabric)) as fault:
            flows.wait_rounds(12)
        flows.wait_rounds(2)
    measured = measure(fabric.lab, flows, [fault])
    assert measured.explained, "\n".join(measured.reasons)
    assert measured.value("lost_outside_faults") == 0
    samples = flows.outcome.samples
    arrived = {tuple(row) for row in samples.arrivals[["flow", "ev", "seq"]].tolist()}
    lost = {tuple(row) for row in samples.sent[["flow", "ev", "seq"]].tolist()} - arrived
    assert {(flow, ev) for flow, ev, _ in lost} == killed
    hit = {key for key, path in flows.path_of.items() if any(outage.hits(path) for outage in fault.outages())}
    assert hit == killed


def test_a_partial_loss_is_no_outage_and_its_packets_are_lost_outside_faults(fabric: NetnsFabric) -> None:
    flows = PathProbes(fabric, [("h0", "h1"), ("h1", "h0")], rate=800)
    with flows.running(), Faults(fabric).loss("p0-t0-0~p0-t1-0", every=3) as loss:
        loss.wait("rule in force")
        flows.wait_rounds(12)
    measured = measure(fabric.lab, flows, [loss])
    assert measured.value("lost_outside_faults") == measured.value("lost") == sum(loss.counted.values()) > 0
    judged = {judgement.limit.name: judgement.outcome for judgement in measured.judgements}
    assert judged == {"loss_ratio": Outcome.PASS}, "there is nothing to fail over from"
