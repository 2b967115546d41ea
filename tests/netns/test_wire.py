"""What is on the wire is what the address plan predicts."""

from __future__ import annotations

import ipaddress
import sys
from collections import Counter
from collections.abc import Mapping

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.lab import Lab, Port
from testbed.traffic.path_probes import PathProbes
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import BringUp
from tests.netns.wire_tap import tapped

Sighting = tuple[int, int, int, int, bytes]

ADOPTED = """
name: adopted
planes: 2
t0_per_plane: 2
t1_per_plane: 1
hosts_per_t0: 1
addressing:
  block: 5f00:beef::/32
  nic_prefix: fd12:3456:789a::/48
  usids: {p0-t0-0: 0x0101, p0-t1-0: 0xabc, p1-t0-1: 0x7777, 'h1:p0': 0xfe01}
"""


def predicted(fabric: NetnsFabric, flows: PathProbes) -> Counter[Sighting]:
    """(flow, EV, node, ifindex, outer destination) of every packet sent, at the far end of each link of its path."""
    nodes = {node: number for number, node in enumerate(fabric.plan.namespaces)}
    sent = flows.outcome.samples.sent
    counts = Counter(zip(sent["flow"].tolist(), sent["ev"].tolist(), strict=True))
    expected: Counter[Sighting] = Counter()
    for (flow, ev), count in counts.items():
        here, end = flows.pairs[flow]
        for link, destination in fabric.addresses.hops(here, end, ev):
            far = link.b if link.a.node == here else link.a
            expected[flow, ev, nodes[far.node], fabric.plan.ports[far], destination.packed] += count
            here = far.node
        assert here == end
    return expected


def check_every_hop(fabric: NetnsFabric, flows: PathProbes) -> None:
    with tapped(fabric) as tap, flows.running():
        flows.wait_rounds(1)
    rows = tap.rows
    assert len(set(rows["run_id"].tolist())) == 1
    names = ("flow", "ev", "node", "ifindex")
    seen = Counter(zip(*(rows[name].tolist() for name in names), map(bytes, rows["to"]), strict=True))
    expected = predicted(fabric, flows)
    assert seen == expected, (
        f"missing {list((expected - seen).items())[:5]}, unexpected {list((seen - expected).items())[:5]}"
    )
    samples = flows.outcome.samples
    assert len(samples.arrivals) == len(samples.sent)


def test_every_ev_of_every_pair_goes_where_the_plan_says(up: BringUp) -> None:
    """Reference: 240 pairs, 6,528 paths; on each of its links the destination as shifted so far, and on no other."""
    fabric = up(Lab.load("reference"))
    flows = Traffic(fabric).probes("all")
    assert len(flows.pairs) == 240
    assert len(flows.path_of) == 192 * 32 + 48 * 8
    check_every_hop(fabric, flows)
    assert {(int(row["flow"]), int(row["ev"])) for row in flows.outcome.samples.arrivals} == set(flows.path_of)


def test_adopted_addresses_work_on_the_wire(up: BringUp) -> None:
    fabric = up(ADOPTED)
    assert fabric.addresses.usid("p0-t1-0") == 0xABC
    first = fabric.addresses.hops("h0", "h1", 0)[0][1]
    assert str(first) == "5f00:beef:101:abc:" + f"{fabric.addresses.usid('p0-t0-1'):x}" + ":fe01::"
    check_every_hop(fabric, Traffic(fabric).probes("all"))


SEND = """
import socket, sys
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 41)
for _ in range(int(sys.argv[2])):
    raw.sendto(bytes.fromhex("60000000 0000 3b 40" + "00" * 32), (sys.argv[1], 0))
"""
SEND_FRAMES = """
import socket, sys
packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
packet.bind((sys.argv[1], 0))
for _ in range(int(sys.argv[3])):
    packet.send(bytes.fromhex(sys.argv[2]))
"""
COUNT = 50


def usids(fabric: NetnsFabric, *names: str | int) -> str:
    """The destination with these uSIDs, given by the names of their owners or as numbers."""
    parts = [name if isinstance(name, int) else fabric.addresses.usid(name) for name in names]
    value = int(fabric.addresses.block.network_address)
    for position, usid in enumerate(parts):
        value |= usid << 80 - 16 * position
    return str(ipaddress.IPv6Address(value))


def counted(fabric: NetnsFabric) -> Mapping[str, tuple[int, int]]:
    counters = {name: fabric.switch(name).usid_counters() for name in fabric.lab.topology.switches}
    return {name: (counter.shifted, counter.foreign) for name, counter in counters.items()}


def risen(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """switch → (more shifted, more foreign), of those that counted anything."""
    more = {name: (after[name][0] - before[name][0], after[name][1] - before[name][1]) for name in after}
    return {name: change for name, change in more.items() if any(change)}


def delivered(fabric: NetnsFabric) -> int:
    """IPv6 packets that hosts' stacks took as addressed to them, known to a protocol or not."""
    total = 0
    for host in fabric.lab.topology.hosts:
        lines = fabric.host(host).run(["cat", "/proc/net/snmp6"]).stdout.splitlines()
        counters = dict(line.split() for line in lines)
        total += int(counters["Ip6InDelivers"]) + int(counters["Ip6InUnknownProtos"])
    return total


#: The uSIDs behind the first T0's, and where the packet ends: who passes it on, who finds it foreign.
FOREIGN: dict[str, tuple[tuple[str | int, ...], list[str], str]] = {
    "unknown at the T0": ((0x1ABC,), [], "p0-t0-0"),
    "another plane's at the T0": (("p1-t1-0", "p1-t0-1", "h1:p1"), [], "p0-t0-0"),
    "unknown at the T1": (("p0-t1-0", 0x1ABC, "h1:p0"), ["p0-t0-0"], "p0-t1-0"),
    "another plane's at the T1": (("p0-t1-1", "p1-t0-1", "h1:p1"), ["p0-t0-0"], "p0-t1-1"),
    "unknown at the far T0": (("p0-t1-0", "p0-t0-1", 0xEABC), ["p0-t0-0", "p0-t1-0"], "p0-t0-1"),
    "zero in the middle": ((0, "p0-t0-1", "h1:p0"), [], "p0-t0-0"),
    "another host port's": ((0xE1FF,), [], "p0-t0-0"),
    "nothing behind the T0": ((), [], ""),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_usid_is_dropped_and_counted_where_it_is_foreign(tiny: NetnsFabric, case: str) -> None:
    behind, passing, foreign = FOREIGN[case]
    before, arrived = counted(tiny), delivered(tiny)
    tiny.host("h0").run([sys.executable, "-c", SEND, usids(tiny, "p0-t0-0", *behind), str(COUNT)])
    change = risen(before, counted(tiny))
    assert {name: change[name][0] for name in change if change[name][0]} == dict.fromkeys(passing, COUNT)
    assert {name: change[name][1] for name in change if change[name][1]} == ({foreign: COUNT} if foreign else {})
    assert delivered(tiny) == arrived


def test_a_packet_of_known_usids_is_delivered(tiny: NetnsFabric) -> None:
    """The same packets as above, to the end: without this the tests above could not see a delivery."""
    before, arrived = counted(tiny), delivered(tiny)
    way = ("p0-t0-0", "p0-t1-0", "p0-t0-1")
    tiny.host("h0").run([sys.executable, "-c", SEND, usids(tiny, *way, "h1:p0"), str(COUNT)])
    assert risen(before, counted(tiny)) == dict.fromkeys(way, (COUNT, 0))
    assert delivered(tiny) == arrived + COUNT


def mac_of(fabric: NetnsFabric, port: Port) -> bytes:
    (device,) = fabric.plan.nodes[port.node].of_device(fabric.plan.ports[port]).devices
    return device.mac


def test_a_foreign_block_is_dropped_at_the_first_switch(tiny: NetnsFabric) -> None:
    """A host has no route for it, so it is put on the link as a frame; it is no uSID of ours and counts as none."""
    link = tiny.lab.topology.link_of(Port("h0", "p0"))
    macs = [mac_of(tiny, port) for port in (link.b, link.a)]
    source, target = tiny.addresses.port_address("h0", 0).packed, ipaddress.IPv6Address("5f00:dead:1000::").packed
    packet = bytes.fromhex("6000000000003b40") + source + target
    frame = b"".join(macs) + b"\x86\xdd" + packet
    before, arrived = counted(tiny), delivered(tiny)
    taken = tiny.switch("p0-t0-0").port_counters()["d0"]["rx_packets"]
    tiny.host("h0").run([sys.executable, "-c", SEND_FRAMES, "p0", frame.hex(), str(COUNT)])
    assert tiny.switch("p0-t0-0").port_counters()["d0"]["rx_packets"] == taken + COUNT
    assert risen(before, counted(tiny)) == {}
    assert delivered(tiny) == arrived


def test_every_switch_counts_what_it_shifts(tiny: NetnsFabric) -> None:
    before = counted(tiny)
    flows = Traffic(tiny).probes("all")
    with flows.running():
        flows.wait_rounds(1)
    sent = flows.outcome.samples.sent
    passed: Counter[str] = Counter()
    for flow, ev in zip(sent["flow"].tolist(), sent["ev"].tolist(), strict=True):
        passed.update(flows.path_of[flow, ev].nodes[1:-1])
    assert risen(before, counted(tiny)) == {name: (count, 0) for name, count in passed.items()}
