"""Ends: retries that are used up, peers that die, wire format on a fabric, and a prober that names a lossy link."""

from __future__ import annotations

import pytest

from testbed.fabric.protocols import Fabric
from testbed.faults.catalogue import Faults
from testbed.lab import Tier
from testbed.pytest_plugin import Showing
from testbed.qualify.checks import across, nothing_failed
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone


def test_a_dead_peer_ends_a_queue_pair_and_no_other(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """Point 11: retries are used up, the queue pair is in error, the rest is flushed; another pair never notices."""
    hosts = fabric.lab.topology.hosts
    doomed, other = (hosts[0], hosts[-1]), (hosts[1], hosts[-2])
    flows = traffic.mrc([doomed, other], message=64 * 1024, depth=3, grace_s=1.0)
    settings = flows.settings
    linear = min(settings.linear_retries, settings.retry_limit)
    doubled = sum(2**n for n in range(1, settings.retry_limit - linear + 1))
    limit_s = (linear + doubled + 2) * settings.ack_timeout_ns * 1e-9
    with flows.running():
        flows.kill(doomed[1])
        flows.wait_failed(3, timeout_s=limit_s + 20.0)
        flows.wait_messages(5)
    one, untouched = flows.outcome.messages
    shown.equal("messages of the dead peer that failed", one.failed, 3, "count")
    shown.equal("messages of the other pair that failed", untouched.failed, 0, "count")
    why = flows.outcome.why[one.name]
    assert "1 RETRY_EXC_ERR" in why, f"ACK timer ignored, or ended otherwise: {why}"
    assert "2 WR_FLUSH_ERR" in why, why


@pytest.mark.requires("gray-loss")
def test_immediates_come_in_order_and_each_once(
    fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing
) -> None:
    """A WRITE_IMM waits for the writes before it: completions of the receiver name their messages in order.

    An EV loses packets, so that messages are whole before those before them.
    """
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst)], message=9_000, depth=16, immediate=True)
    with flows.running():
        with faults.loss(f"{src}>{dst}:{flows.evs[src, dst][1]:#06x}", every=4):
            flows.wait_messages(60)
        flows.wait_messages(20)
    nothing_failed(shown, flows)


def test_each_packet_is_placed_once(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """No packet is written to memory twice, whatever was sent again.

    Packet numbers begin at random, so that runs cross their wrap now and then.
    """
    flows = traffic.mrc("permutation", message=64 * 1024, depth=2)
    with flows.running():
        flows.wait_messages(20 * len(flows.pairs))
    nothing_failed(shown, flows)
    arrivals = flows.outcome.arrivals
    placed = arrivals[(arrivals["flags"] & 4) != 0]
    keys = set(zip(placed["flow"].tolist(), placed["seq"].tolist(), strict=True))
    shown.equal("packets placed more than once", len(placed) - len(keys), 0, "packets")


@pytest.mark.requires("gray-loss")
def test_the_prober_names_a_lossy_nic_link_and_nics_avoid_it(
    fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing
) -> None:
    """Point 9: MRC cannot tell which end of a lossy NIC–T0 link is bad; a detector can, and feeds the denylist."""
    pair = across(fabric)
    flows = traffic.mrc([pair], message=64 * 1024, depth=1)
    prober = traffic.prober(healthy_s=0.5)
    link = fabric.link(above=Tier.HOST, carrying=flows)
    with flows.running(), prober.running():
        feed = prober.feed(flows)
        with faults.loss(link, share=0.2):
            suspect = prober.wait_suspect(lambda one: one.element.subject == link.name, 30.0)
            denied = len(feed.denied.get(pair, frozenset()))
            flows.wait_messages(10)
        prober.wait_clear()
        flows.wait_messages(5)
    nothing_failed(shown, flows)
    shown.at_least("confidence", suspect.confidence, 0.99, "ratio")
    shown.at_least("EVs denied", denied, 1, "count")
    accused = {one.element.subject for one in prober.outcome.accused} - {link.name}
    shown.equal("others accused", len(accused), 0, "count", timed=flows)
