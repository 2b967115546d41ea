"""A lab as kernel state: which namespaces, interfaces, addresses and routes it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbed.addressing import ORDINARY, AddressPlan
from testbed.fabric.netns import marking
from testbed.fabric.netns.state import GATEWAY, Action, Address, Device, Neighbour, NodeState, Route, Shaper
from testbed.lab import Lab, Link, Port, Tier

_LOOPBACK_INDEX, _LOOPBACK_MTU = 1, 65_536
# Per tier, so that the two ends of a link never have the same ifindex: the kernel takes such a veth for a device of
# its own and tells its carrier up to a second late.
_FIRST_PORT_INDEX = {Tier.HOST: 2, Tier.T0: 1002, Tier.T1: 3002}
_ETHERNET_HEADER = 14

#: SIDs hang on one end of this pair: an interface that goes down takes its routes along, and a switch must keep
#: its own SIDs when a port goes down.
_SID_DEVICES = ("sid0", "sid1")
_SID_PAIR = 0xFFFF_FFFF
_SID_BITS = 48


@dataclass(frozen=True)
class PlannedLink:
    """A veth pair to make: namespace and device of each end (both in one namespace for a SID pair)."""

    namespace: int
    device: Device
    peer_namespace: int
    peer: Device


@dataclass(frozen=True)
class FabricPlan:
    """Everything a lab takes.

    Attributes:
        namespaces: node → number of its namespace.
        nodes: node → the state it is to have.
        links: veth pairs, in the order they are made.
        ports: port → ifindex in its namespace.
        burst: bytes a shaper lets through at once.
    """

    namespaces: Mapping[str, int]
    nodes: Mapping[str, NodeState]
    links: tuple[PlannedLink, ...]
    ports: Mapping[Port, int]
    burst: int

    def without_marking(self) -> None:
        """Give up ECN marks, which this kernel cannot make."""
        for state in self.nodes.values():
            state.markers.clear()


def plan(lab: Lab, addresses: AddressPlan) -> FabricPlan:
    """Work out the kernel state of a lab. Pure."""
    return _Planner(lab, addresses).result()


class _Planner:
    def __init__(self, lab: Lab, addresses: AddressPlan) -> None:
        self._lab = lab
        self._addresses = addresses
        self._topology = lab.topology
        self._namespaces = {node: number for number, node in enumerate(self._topology.nodes)}
        self._nodes = {node: NodeState() for node in self._topology.nodes}
        self._links: list[PlannedLink] = []
        self._ports = {
            port: _FIRST_PORT_INDEX[self._topology.tier(node)] + offset
            for node in self._topology.nodes
            for offset, port in enumerate(self._topology.ports(node))
        }

    def result(self) -> FabricPlan:
        for number, link in enumerate(self._topology.links):
            self._link(number, link)
        for host in self._topology.hosts:
            self._host(host)
        for switch in self._topology.switches:
            self._switch(switch)
        return FabricPlan(
            self._namespaces,
            self._nodes,
            tuple(self._links),
            self._ports,
            burst=2 * (self._lab.link.mtu + _ETHERNET_HEADER),
        )

    def _link(self, number: int, link: Link) -> None:
        near = self._device(link.a, _mac(number, 0))
        far = self._device(link.b, _mac(number, 1))
        self._links.append(PlannedLink(self._namespaces[link.a.node], near, self._namespaces[link.b.node], far))
        self._end(link.a, near, far.mac)
        self._end(link.b, far, near.mac)
        # Each end forwards the other's uSID over the link: a T0's, a T1's, or that of a host's port.
        far_usid = self._addresses.usid(link.b.node)
        near_usid = self._addresses.usid(str(link.a) if self._is_host(link.a.node) else link.a.node)
        self._nodes[link.b.node].routes.add(self._forward(near_usid, far.ifindex))
        source = self._addresses.port_address(link.a.node, link.plane).packed if self._is_host(link.a.node) else b""
        self._nodes[link.a.node].routes.add(self._forward(far_usid, near.ifindex, source))

    def _is_host(self, node: str) -> bool:
        return self._topology.tier(node) is Tier.HOST

    def _forward(self, usid: int, index: int, source: bytes = b"") -> Route:
        return Route(self._prefix(usid), _SID_BITS, Action.FORWARD, index, source=source)

    def _prefix(self, *usids: int) -> bytes:
        block = self._addresses.block.network_address.packed[:4]
        return (block + b"".join(usid.to_bytes(2, "big") for usid in usids)).ljust(16, b"\0")

    def _device(self, port: Port, mac: bytes) -> Device:
        return Device(self._ports[port], port.name, self._lab.link.mtu, mac, up=True, running=True)

    def _end(self, port: Port, device: Device, peer_mac: bytes) -> None:
        state = self._nodes[port.node]
        state.devices.add(device)
        state.neighbours.add(Neighbour(device.ifindex, GATEWAY, peer_mac))
        rate, queue = self._lab.emulated_rate, self._lab.queue_bytes
        if rate is not None and queue is not None:
            state.shapers.add(Shaper(device.ifindex, "tbf", rate // 8, queue))
        threshold = self._lab.ecn_bytes
        if rate is not None and threshold is not None and not self._is_last_hop(port):
            frame = self._lab.link.mtu + _ETHERNET_HEADER
            state.markers.add(marking.marker(device.ifindex, rate // 8, threshold, frame))

    def _is_last_hop(self, port: Port) -> bool:
        """Whether a port leads to a host, or is one's: only links between switches mark."""
        return self._is_host(port.node) or self._is_host(self._topology.peer(port).node)

    def _host(self, host: str) -> None:
        state = self._nodes[host]
        state.devices.add(Device(_LOOPBACK_INDEX, "lo", _LOOPBACK_MTU, b"", up=True, running=True))
        state.addresses.add(Address(_LOOPBACK_INDEX, self._addresses.nic_address(host).packed))
        for port in self._topology.ports(host):
            index = self._ports[port]
            plane = self._topology.link_of(port).plane
            usid = self._addresses.usid(str(port))
            state.addresses.add(Address(index, self._addresses.port_address(host, plane).packed))
            # What ends here raw (MRC, probes) is for the port's own address; ordinary IPv6 is decapsulated at one
            # more uSID, because a local address takes precedence over a route.
            state.addresses.add(Address(index, self._prefix(usid)))
            state.routes.add(Route(self._prefix(usid, ORDINARY), 64, Action.DECAPSULATE, index))

    def _switch(self, switch: str) -> None:
        state = self._nodes[switch]
        namespace = self._namespaces[switch]
        index = _FIRST_PORT_INDEX[self._topology.tier(switch)] + len(self._topology.ports(switch))
        mtu = self._lab.link.mtu
        pair = [
            Device(index + offset, name, mtu, _mac(_SID_PAIR, offset), up=True, running=True)
            for offset, name in enumerate(_SID_DEVICES)
        ]
        self._links.append(PlannedLink(namespace, pair[0], namespace, pair[1]))
        state.devices |= {Device(_LOOPBACK_INDEX, "lo", _LOOPBACK_MTU, b"", up=False, running=False), *pair}
        state.routes.add(Route(self._prefix(self._addresses.usid(switch)), _SID_BITS, Action.UN, index))
        # Whatever no route above knows is foreign: dropped and counted, by this route's error counter.
        block = self._addresses.block
        state.routes.add(Route(block.network_address.packed, block.prefixlen, Action.DROP, index))


def _mac(number: int, side: int) -> bytes:
    """A locally administered address, unique per link and side."""
    return b"\x02" + number.to_bytes(4, "big") + bytes([side])
