"""What a fault could leave behind shows in `check`; one that is refused half way leaves nothing."""

from __future__ import annotations

import os

import pytest

from testbed.errors import InfrastructureError
from testbed.fabric.conditions import Drop, PortDown, Rule
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.lab import Port

#: Left behind on purpose: a node, the commands that do it and undo it, and the line by which it is found.
LEFT = {
    "a table": (
        "p0-t0-0",
        "nft add table netdev fault_1",
        "nft delete table netdev fault_1",
        "p0-t0-0: unexpected nftables table netdev fault_1",
    ),
    "a shaper": (
        "p0-t0-0",
        "tc qdisc add dev t1-0 root tbf rate 1mbit burst 20000 limit 144000",
        "tc qdisc del dev t1-0 root",
        "p0-t0-0: unexpected qdisc tbf dev t1-0 rate 125000 B/s limit 144000 B",
    ),
    "an address": (
        "h0",
        "ip addr add fd00::9/128 dev p0 nodad",
        "ip addr del fd00::9/128 dev p0",
        "h0: unexpected address fd00::9/128 dev p0",
    ),
    "a route": (
        "p0-t1-0",
        "ip -6 route add 5f00:0:dead::/48 via fe80::1 dev t0-0",
        "ip -6 route del 5f00:0:dead::/48",
        "p0-t1-0: unexpected route 5f00:0:dead::/48 via fe80::1 dev t0-0",
    ),
}


@pytest.mark.parametrize(("node", "do", "undo", "line"), LEFT.values(), ids=LEFT)
@pytest.mark.parametrize("beside_faults", [False, True])
def test_what_is_left_behind_is_found(
    tiny: NetnsFabric, node: str, do: str, undo: str, line: str, beside_faults: bool
) -> None:
    with Faults(tiny).loss("h1:p0", share=0.5) as other:
        other.wait("rule in force")
        tiny.node(node).run(do.split())
        found = tiny.check(beside_faults=beside_faults)
        tiny.node(node).run(undo.split())
    assert line in found
    assert (len(found) == 1) == beside_faults


def test_of_conditions_that_are_imposed_together_all_hold_or_none(tiny: NetnsFabric) -> None:
    """The table that the last of three would make is there already."""
    ports = [Port("p0-t1-0", "t0-0"), Port("p0-t1-0", "t0-1")]
    rules = [Rule(port, False, Drop()) for port in ports]
    first = tiny.impose("to learn the number", rules)
    following = int(first.id.rpartition("-")[2]) + 1
    first.lift()
    taken = f"fault_F{os.getpid()}_{following}_2_in_t0_1"
    tiny.switch("p0-t1-0").run(["nft", "add", "table", "netdev", taken])
    try:
        with pytest.raises(InfrastructureError, match=r"(?s)rule p0-t1-0:t0-1.*EEXIST"):
            tiny.impose("three at once", [PortDown(ports[0]), *rules])
        assert tiny.client.claims() == ([], [])
        left = tiny.check()
    finally:
        tiny.switch("p0-t1-0").run(["nft", "delete", "table", "netdev", taken], check=False)
    # Its base takes away whatever is called so.
    assert left == []


def test_a_fault_that_is_refused_says_so_and_is_not_unhealed(tiny: NetnsFabric) -> None:
    faults = Faults(tiny)
    first = tiny.impose("to learn the number", [Rule(Port("h1", "p0"), False, Drop())])
    following = int(first.id.rpartition("-")[2]) + 1
    first.lift()
    taken = f"fault_F{os.getpid()}_{following}_0_in_p0"
    tiny.host("h1").run(["nft", "add", "table", "netdev", taken])
    with pytest.raises(InfrastructureError, match="could not be done"), faults.loss("h1:p0") as loss:
        loss.wait("rule in force")
    assert faults.unhealed == []
    assert loss.outages() == []
    assert tiny.check() == []
