"""A plan as input of ``ip -batch`` and ``tc -batch``: the same links, addresses, neighbours, routes and shapers."""

from __future__ import annotations

from ipaddress import IPv6Address

from testbed.fabric.netns.plan import FabricPlan
from testbed.fabric.netns.state import Action, Device, NodeState, Route


def namespace_lines(plan: FabricPlan) -> list[str]:
    """Input of one ``ip -batch`` that makes all namespaces, named as their nodes."""
    return [f"netns add {node}" for node in plan.namespaces]


def link_lines(plan: FabricPlan) -> list[str]:
    """Input of one ``ip -batch`` that makes all veth pairs, each end where it belongs."""
    nodes = list(plan.namespaces)
    return [
        f"link add {_end(link.device)} netns {nodes[link.namespace]} "
        f"type veth peer name {_end(link.peer)} netns {nodes[link.peer_namespace]}"
        for link in plan.links
    ]


def node_lines(state: NodeState) -> list[str]:
    """Input of ``ip -6 -n NODE -batch``: everything else that a node is to have, but its shapers."""
    names = {device.ifindex: device.name for device in state.devices}
    return [
        *(f"link set dev {device.name} up" for device in state.devices if device.up),
        *(
            f"neigh add {IPv6Address(entry.address)} lladdr {_mac(entry.mac)} nud permanent dev {names[entry.ifindex]}"
            for entry in state.neighbours
        ),
        *(
            f"addr add {IPv6Address(entry.address)}/128 dev {names[entry.ifindex]} nodad noprefixroute"
            for entry in state.addresses
        ),
        *(_route(route, names[route.ifindex]) for route in state.routes),
    ]


def shaper_lines(state: NodeState, burst: int) -> list[str]:
    """Input of ``tc -n NODE -batch``."""
    names = {device.ifindex: device.name for device in state.devices}
    return [
        f"qdisc add dev {names[shaper.ifindex]} root handle 1: tbf "
        f"rate {shaper.rate * 8}bit burst {burst} limit {shaper.limit}"
        for shaper in state.shapers
    ]


def _end(device: Device) -> str:
    one_queue = "numtxqueues 1 numrxqueues 1"
    return f"{device.name} index {device.ifindex} mtu {device.mtu} address {_mac(device.mac)} {one_queue}"


def _route(route: Route, device: str) -> str:
    how = {
        Action.FORWARD: "via fe80::1",
        Action.UN: "encap seg6local action End flavors next-csid lblen 32 nflen 16 count",
        Action.DROP: "encap seg6local action End count",
        Action.DECAPSULATE: "encap seg6local action End.DT6 table 255",
    }[route.action]
    source = f" src {IPv6Address(route.source)}" if route.source else ""
    return f"route add {IPv6Address(route.prefix)}/{route.length} {how} dev {device} proto static{source}"


def _mac(mac: bytes) -> str:
    return mac.hex(":")
