"""A lab as kernel state, worked out without a kernel."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address

import pytest

from testbed.addressing import AddressPlan
from testbed.fabric.netns.plan import FabricPlan, plan
from testbed.fabric.netns.state import Action, Address, Device, NodeState, Route, Shaper, differences, union
from testbed.lab import Lab, Tier

TINY = "name: tiny\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 1\n"
LABS = {
    "tiny": TINY,
    "one switch": "name: one\nplanes: 1\nt0_per_plane: 1\nt1_per_plane: 0\nhosts_per_t0: 4\n",
    "irregular": "name: odd\nplanes: 3\nt0_per_plane: 3\nt1_per_plane: 2\nhosts_per_t0: 2\n"
    "absent: [p1, p0-t1-0, h3, 'h0:p2', 'p2-t0-0~p2-t1-1']\n",
    "shaped": TINY + "link: {rate: 100 Gbit/s, mtu: 4200}\ntime_scale: 1000\n",
}


@pytest.fixture(params=LABS.values(), ids=list(LABS))
def lab(request: pytest.FixtureRequest) -> Lab:
    return Lab.parse(request.param)


@pytest.fixture
def planned(lab: Lab) -> FabricPlan:
    return plan(lab, AddressPlan(lab))


def test_every_node_has_a_namespace_and_every_link_a_pair(lab: Lab, planned: FabricPlan) -> None:
    topology = lab.topology
    assert list(planned.namespaces) == list(planned.nodes) == list(topology.nodes)
    assert list(planned.namespaces.values()) == list(range(len(topology.nodes)))
    # Besides, a pair in each switch that its SIDs hang on.
    assert len(planned.links) == len(topology.links) + len(topology.switches)
    ends = Counter(
        end
        for link in planned.links
        for end in ((link.namespace, link.device.ifindex), (link.peer_namespace, link.peer.ifindex))
    )
    assert set(ends.values()) == {1}


def test_the_two_ends_of_a_link_never_have_the_same_index(planned: FabricPlan) -> None:
    assert all(link.device.ifindex != link.peer.ifindex for link in planned.links)


def test_each_end_knows_the_others_hardware_address(lab: Lab, planned: FabricPlan) -> None:
    devices = {(node, device.ifindex): device for node, state in planned.nodes.items() for device in state.devices}
    macs = [device.mac for device in devices.values() if device.name not in ("lo", "sid0", "sid1")]
    assert len(set(macs)) == len(macs) == 2 * len(lab.topology.links)
    for link in lab.topology.links:
        for here, there in ((link.a, link.b), (link.b, link.a)):
            (neighbour,) = planned.nodes[here.node].of_device(planned.ports[here]).neighbours
            assert neighbour.mac == devices[there.node, planned.ports[there]].mac


def test_a_switch_shifts_its_own_usid_and_forwards_its_neighbours(lab: Lab, planned: FabricPlan) -> None:
    addresses = AddressPlan(lab)
    for switch in lab.topology.switches:
        by_action: dict[Action, set[IPv6Address]] = {}
        for route in planned.nodes[switch].routes:
            by_action.setdefault(route.action, set()).add(IPv6Address(route.prefix))
        assert by_action[Action.UN] == {addresses.sid(switch).network_address}
        assert by_action[Action.DROP] == {addresses.block.network_address}
        ports = lab.topology.ports(switch)
        assert len(by_action.get(Action.FORWARD, ())) == len(ports)
        assert planned.nodes[switch].addresses == set()


def test_a_host_reaches_each_plane_by_its_t0_from_that_planes_address(lab: Lab, planned: FabricPlan) -> None:
    addresses = AddressPlan(lab)
    for host in lab.topology.hosts:
        forwards = {route for route in planned.nodes[host].routes if route.action is Action.FORWARD}
        expected = set()
        for port in lab.topology.ports(host):
            t0 = lab.topology.peer(port).node
            assert lab.topology.tier(t0) is Tier.T0
            plane = lab.topology.link_of(port).plane
            prefix = addresses.sid(t0).network_address.packed
            source = addresses.port_address(host, plane).packed
            expected.add(Route(prefix, 48, Action.FORWARD, planned.ports[port], source=source))
        assert forwards == expected
        # NIC address, and on each port its outer address and where its uSID ends.
        assert len(planned.nodes[host].addresses) == 1 + 2 * len(lab.topology.ports(host))


def test_a_lab_with_a_rate_shapes_both_ends_of_every_link() -> None:
    lab = Lab.parse(LABS["shaped"])
    planned = plan(lab, AddressPlan(lab))
    shapers = [shaper for state in planned.nodes.values() for shaper in state.shapers]
    assert len(shapers) == 2 * len(lab.topology.links)
    assert {(shaper.kind, shaper.rate) for shaper in shapers} == {("tbf", 12_500_000)}
    assert planned.burst >= 4200 + 14
    unshaped = Lab.parse(TINY)
    assert not any(state.shapers for state in plan(unshaped, AddressPlan(unshaped)).nodes.values())


def test_a_shaped_lab_marks_on_links_between_switches_and_nowhere_else() -> None:
    lab = Lab.parse(LABS["shaped"])
    planned = plan(lab, AddressPlan(lab))
    between = {
        (end.node, planned.ports[end])
        for link in lab.topology.links
        if lab.topology.tier(link.a.node) is Tier.T0
        for end in (link.a, link.b)
    }
    markers = {(node, marker.ifindex): marker for node, state in planned.nodes.items() for marker in state.markers}
    assert markers.keys() == between
    # 101% of 12.5 MB/s, and a quarter of the queue, in tokens of 1,024 bytes: a frame of 4,214 bytes takes 4.1.
    assert {(m.per_hour, m.burst, m.unit) for m in markers.values()} == {(44_384_766, 31, 1024)}
    planned.without_marking()
    assert not any(state.markers for state in planned.nodes.values())
    for ecn in ("link: {rate: 100 Gbit/s, mtu: 4200, ecn: off}\n", ""):
        off = Lab.parse(TINY + ecn + "time_scale: 1000\n")
        assert not any(state.markers for state in plan(off, AddressPlan(off)).nodes.values())


# -- differences ----------------------------------------------------------------------------------------------------

DEVICE = Device(3, "p1", 9000, b"\2\0\0\0\0\1", up=True, running=True)
STATE = NodeState({DEVICE}, {Address(3, bytes(15) + b"\5")}, set(), {Route(bytes(16), 0, Action.FORWARD, 3)}, set())


def test_equal_states_have_no_differences() -> None:
    assert differences(STATE, STATE) == []
    assert not STATE - STATE


def test_differences_are_told_from_both_sides_with_names() -> None:
    found = NodeState(
        {DEVICE._replace(mtu=1500, running=False)}, set(), set(), STATE.routes, {Shaper(3, "tbf", 10, 20)}
    )
    assert differences(STATE, found) == [
        "missing link p1 mtu 9000 up",
        "missing address ::5/128 dev p1",
        "unexpected link p1 mtu 1500 up no carrier",
        "unexpected qdisc tbf dev p1 rate 10 B/s limit 20 B",
    ]


def test_an_interface_that_is_gone_is_still_named() -> None:
    assert differences(STATE, NodeState())[1:] == [
        "missing address ::5/128 dev p1",
        "missing route ::/0 via fe80::1 dev p1",
    ]


def test_the_part_of_one_interface() -> None:
    other = NodeState({DEVICE._replace(ifindex=4, name="p2")}, {Address(4, bytes(16))})
    assert union([STATE, other]).of_device(3) == STATE
    assert union([STATE, other]).of_device(4) == other
