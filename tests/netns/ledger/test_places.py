"""Each place at which packets end, provoked: the ledger names it, and counts exactly what was lost there."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from testbed.experiment.transfers import measure_transfers
from testbed.fabric.netns import messages
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.lab import Port
from testbed.ledger import balance, edges
from testbed.measure.limits import Outcome
from testbed.traffic.path_probes import PathProbes
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import realise
from tests.netns.ledger.scenes import BACK_AND_FORTH, CROWD, SLOW, assert_explained, places, ran
from tests.netns.nft import nft

LINK = "p0-t0-0~p0-t1-0"


@pytest.fixture(scope="module")
def _slow() -> Iterator[NetnsFabric]:
    with realise(SLOW) as fabric:
        yield fabric


@pytest.fixture
def slow(_slow: NetnsFabric) -> Iterator[NetnsFabric]:
    """Two T0s, two T1s, four hosts; each test leaves it as it was."""
    yield _slow
    assert _slow.check() == []


def port(fabric: NetnsFabric, node: str, name: str) -> Port:
    return next(port for port in fabric.lab.topology.ports(node) if port.name == name)


def test_an_undisturbed_run_loses_nothing_and_leaves_nothing(slow: NetnsFabric) -> None:
    ledger = assert_explained(ran(slow, lambda flows: flows.wait_rounds(50)))
    assert ledger.drops == ()
    assert ledger.delivered == ledger.sent


def test_a_t1_reboot_loses_at_the_switch_and_at_its_neighbours(slow: NetnsFabric) -> None:
    def reboot(_: PathProbes) -> None:
        with Faults(slow).reboot("p0-t1-0") as fault:
            fault.wait("forwarding")

    ledger = assert_explained(ran(slow, reboot))
    found = places(ledger)
    assert {"p0-t1-0", "p0-t0-0", "p0-t0-1"} <= {hop for hop, cause in found if cause == balance.FOREIGN}
    assert {hop.partition(":")[0] for hop, _ in found} <= {"p0-t1-0", "p0-t0-0", "p0-t0-1"}
    # Nothing waits at this rate: no queue held what a reboot could empty.
    assert {cause for _, cause in found} <= {balance.FOREIGN, balance.NO_CARRIER}


def test_a_t0_reboot_loses_at_its_hosts_too_whose_kernels_refuse(slow: NetnsFabric) -> None:
    def reboot(_: PathProbes) -> None:
        with Faults(slow).reboot("p0-t0-1") as fault:
            fault.wait("forwarding")

    measured = ran(slow, reboot)
    found = places(assert_explained(measured))
    refused = int((measured.flows.outcome.samples.sent["status"] == errno.ENETUNREACH).sum())
    assert found["h2:p0", "refused by its own kernel: ENETUNREACH"] == refused > 0
    assert {"p0-t0-1", "p0-t1-0", "p0-t1-1"} <= {hop for hop, cause in found if cause == balance.FOREIGN}


def test_a_link_cut_between_switches_loses_at_both_its_ends(slow: NetnsFabric) -> None:
    def cut(flows: PathProbes) -> None:
        with Faults(slow).link_down(LINK) as fault:
            fault.wait("carrier lost")
            flows.wait_rounds(30)

    measured = ran(slow, cut)
    ledger = assert_explained(measured)
    assert {drop.node for drop in ledger.drops} == {"p0-t0-0", "p0-t1-0"}
    (there, back) = sorted(measured.accounts.attributions, key=lambda one: one.flow)
    assert (there.flow, back.flow) == ("h0>h2", "h2>h0")
    assert there.lost + back.lost == ledger.dropped


def test_a_link_cut_below_a_t0_loses_there_and_at_the_host(slow: NetnsFabric) -> None:
    def cut(flows: PathProbes) -> None:
        with Faults(slow).link_down("h2:p0~p0-t0-1") as fault:
            fault.wait("carrier lost")
            flows.wait_rounds(30)

    measured = ran(slow, cut)
    found = places(assert_explained(measured))
    assert found["p0-t0-1", balance.FOREIGN] > 50
    refused = int((measured.flows.outcome.samples.sent["status"] != 0).sum())
    assert found["h2:p0", "refused by its own kernel: ENETUNREACH"] == refused > 50


@pytest.mark.parametrize("over", [True, False], ids=["over", "in force"])
def test_a_fault_that_drops_is_the_place_of_exactly_what_it_counted(slow: NetnsFabric, over: bool) -> None:
    fault = Faults(slow).loss("p0-t0-0:d0", share=0.2, usid="p0-t1-1")

    def lossy(flows: PathProbes) -> None:
        if over:
            with fault:
                flows.wait_rounds(200)
        flows.wait_rounds(200)

    with ExitStack() as held:
        if not over:
            held.enter_context(fault).wait("rule in force")
        measured = ran(slow, lossy)
    (dropped,) = fault.counted.values()
    place = ("p0-t0-0:d0", balance.BY_FAULT)
    assert dropped > 10
    assert places(assert_explained(measured)) == {place: dropped}
    (one,) = measured.accounts.attributions
    assert one.certain == {place: dropped}
    assert slow.addresses.path("h0", "h2", one.ev).nodes[2] == "p0-t1-1"


def test_copies_that_a_fault_makes_are_no_packets_out_of_nowhere(slow: NetnsFabric) -> None:
    fault = Faults(slow).duplication("p0-t0-0~p0-t1-0", every=5)

    def doubled(flows: PathProbes) -> None:
        with fault:
            flows.wait_rounds(100)

    measured = ran(slow, doubled, pairs=[("h0", "h2")])
    ledger = measured.ledger
    assert (ledger.unknown, ledger.remainders, ledger.drops) == ("", (), ())
    assert ledger.copies == sum(fault.counted.values()) > 10
    assert ledger.delivered == ledger.sent + ledger.copies


def test_a_rule_that_is_there_is_read_by_its_named_counter(slow: NetnsFabric) -> None:
    switch = slow.switch("p0-t1-1")
    rules = (
        "add table netdev gray; add counter netdev gray dropped; "
        "add chain netdev gray at { type filter hook ingress device t0-0 priority -10; }; "
        "add rule netdev gray at meta protocol ip6 numgen inc mod 7 == 0 counter name dropped drop"
    )
    switch.run([nft(), rules])
    try:
        measured = ran(slow, lambda flows: flows.wait_rounds(100))
    finally:
        switch.run([nft(), "delete", "table", "netdev", "gray"])
    samples = measured.flows.outcome.samples
    lost = len(samples.sent) - len(samples.arrivals)
    assert places(assert_explained(measured)) == {("p0-t1-1", "rule gray"): lost}
    assert lost > 10


def test_a_foreign_usid_is_dropped_where_its_route_is_missing(slow: NetnsFabric) -> None:
    """A black hole of one uSID: the T1 has no route to one of its T0s."""

    def black_hole(flows: PathProbes) -> None:
        with Faults(slow).blackhole("p0-t1-0", "p0-t0-1"):
            flows.wait_rounds(50)

    measured = ran(slow, black_hole)
    ledger = assert_explained(measured)
    assert places(ledger) == {("p0-t1-0", balance.FOREIGN): ledger.dropped}
    (one,) = measured.accounts.attributions
    assert (one.flow, one.lost, one.certain) == ("h0>h2", ledger.dropped, places(ledger))
    assert ledger.dropped > 25


def test_a_queue_that_overflows_is_named_with_its_port(slow: NetnsFabric) -> None:
    ledger = assert_explained(ran(slow, lambda flows: flows.go_on_for(0.3), pairs=CROWD, rate=3000, size=1000))
    assert places(ledger) == {("p0-t0-1:d0", balance.QUEUE_FULL): ledger.dropped}
    assert ledger.dropped > 300


def test_a_hosts_own_queue_refuses_and_the_sender_is_told(slow: NetnsFabric) -> None:
    measured = ran(slow, lambda flows: flows.go_on_for(0.3), pairs=[("h0", "h2")], rate=6000, size=1000)
    ledger = assert_explained(measured)
    refused = int((measured.flows.outcome.samples.sent["status"] == errno.ENOBUFS).sum())
    assert places(ledger) == {("h0:p0", "refused by its own kernel: ENOBUFS"): refused}
    assert measured.accounts.attributions == ()


def test_queues_that_a_reboot_empties_are_named_by_their_switch(slow: NetnsFabric) -> None:
    """Full when the T0's links go: what they held is in no counter, and as many as the switch's balance lacks."""

    def reboot(flows: PathProbes) -> None:
        flows.go_on_for(0.2)
        with Faults(slow).reboot("p0-t0-1") as fault:
            fault.wait("forwarding")

    found = places(assert_explained(ran(slow, reboot, pairs=CROWD, rate=3000, size=1000)))
    ((hop, cause),) = [place for place in found if place[1].startswith(balance.PURGED)]
    assert hop == "p0-t0-1"
    assert "d0" in cause
    assert 0 < found[hop, cause] < 200


@pytest.mark.parametrize(
    ("node", "device", "hop", "cause"),
    [
        ("p0-t1-0", "t0-1", "p0-t1-0", "larger than the MTU of the next link"),
        ("p0-t0-1", "t1-0", "p0-t1-0:t0-1", balance.NOT_TAKEN),
    ],
    ids=["leaving", "arriving"],
)
def test_an_mtu_too_small_is_named_on_the_side_where_it_is(
    slow: NetnsFabric, node: str, device: str, hop: str, cause: str
) -> None:
    def shrunk(flows: PathProbes) -> None:
        slow.switch(node).run(["ip", "link", "set", device, "mtu", "1280"])
        flows.wait_rounds(20)
        slow.switch(node).run(["ip", "link", "set", device, "mtu", "9000"])

    ledger = assert_explained(ran(slow, shrunk, pairs=[("h0", "h2")], size=2000, rate=500))
    assert places(ledger) == {(hop, cause): ledger.dropped}
    assert ledger.dropped >= 10


def test_a_missing_neighbour_is_seen_where_its_packets_arrive(slow: NetnsFabric) -> None:
    namespace = slow.plan.namespaces["p0-t1-0"]
    index = slow.plan.ports[port(slow, "p0-t1-0", "t0-1")]
    (entry,) = [neighbour for neighbour in slow.plan.nodes["p0-t1-0"].neighbours if neighbour.ifindex == index]

    def forgotten(flows: PathProbes) -> None:
        slow.switch("p0-t1-0").run(["ip", "neigh", "del", "fe80::1", "dev", "t0-1"])
        flows.wait_rounds(30)
        slow.client.netlink([(namespace, messages.neighbour(entry))])

    ledger = assert_explained(ran(slow, forgotten, pairs=[("h0", "h2")]))
    assert places(ledger) == {("p0-t0-1:t1-0", balance.WRONG_ADDRESS): ledger.dropped}
    assert ledger.dropped > 10


def test_a_paused_receiver_loses_in_its_ring(slow: NetnsFabric) -> None:
    def pause(flows: PathProbes) -> None:
        assert flows._run is not None
        (receiver,) = flows._run._receivers.processes
        receiver.signal(signal.SIGSTOP)
        # More than a ring holds: 16,384 probes.
        flows.wait_rounds(10_000)
        receiver.signal(signal.SIGCONT)

    measured = ran(slow, pause, rate=12_000)
    samples = measured.flows.outcome.samples
    found = places(assert_explained(measured))
    assert sum(found.values()) == samples.receiver_drops > 0
    assert {cause for _, cause in found} == {edges.RING_FULL}
    received = np.bincount(samples.arrivals["flow"], minlength=2)
    sent = np.bincount(samples.sent["flow"], minlength=2)
    for number, (_, host) in enumerate(BACK_AND_FORTH):
        assert found.get((host, edges.RING_FULL), 0) == sent[number] - received[number]


def test_a_killed_nic_is_the_place_of_what_still_reached_its_host(slow: NetnsFabric) -> None:
    flows = Traffic(slow, seed=2).mrc([("h0", "h2"), ("h1", "h3")], message=20_000)
    with flows.running():
        flows.kill("h2")
        flows.go_on_for(0.3)
    measured = measure_transfers(slow.lab, flows)
    ledger = measured.ledger
    assert (ledger.unknown, ledger.unexplained, ledger.remainders) == ("", 0, ())
    found = places(ledger)
    assert found["h2", edges.NOBODY] > 0
    assert {cause for hop, cause in found if hop == "h2"} <= {edges.NOBODY, edges.KILLED}
    assert {hop for hop, cause in found if cause == edges.KILLED} <= {"h2"}


@pytest.mark.parametrize(
    ("hook", "device", "where"),
    [("ingress", "t0-0", "before it was routed"), ("egress", "t0-1", "after it was routed")],
)
def test_a_rule_that_nobody_knows_of_leaves_exactly_what_it_drops_unexplained_at_its_node(
    slow: NetnsFabric, hook: str, device: str, where: str
) -> None:
    rules = (
        "add table netdev hidden; "
        f"add chain netdev hidden at {{ type filter hook {hook} device {device} priority -10; }}; "
        "add rule netdev hidden at meta protocol ip6 numgen inc mod 5 == 0 drop"
    )
    switch = slow.switch("p0-t1-0")
    switch.run([nft(), rules])
    try:
        measured = ran(slow, lambda flows: flows.wait_rounds(50), pairs=[("h0", "h2")])
    finally:
        switch.run([nft(), "delete", "table", "netdev", "hidden"])
    samples = measured.flows.outcome.samples
    lost = len(samples.sent) - len(samples.arrivals)
    (remainder,) = measured.ledger.remainders
    assert (remainder.place, remainder.packets) == (f"p0-t1-0, {where}", lost)
    assert measured.value("unexplained_packets") == lost > 5
    assert measured.outcome in (Outcome.FAIL, Outcome.UNKNOWN)
    assert measured.unknown_because or measured.outcome is Outcome.FAIL
    assert measured.accounts.attributions == ()
