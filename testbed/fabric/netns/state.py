"""The kernel state of one node: what a plan wants of a namespace, and what a snapshot found in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv6Address
from typing import NamedTuple

#: Every link is unnumbered: its other end is this gateway, with a permanent neighbour entry.
GATEWAY = IPv6Address("fe80::1").packed


class Action(IntEnum):
    """What a route does with a packet."""

    OTHER = -1  #: something that no plan contains
    FORWARD = 0  #: send to the other end of a link
    UN = 1  #: seg6local End, flavour next-csid: shift the uSIDs and look the result up
    DROP = 2  #: seg6local End without an SRH to work on: drop and count
    DECAPSULATE = 3  #: seg6local End.DT6 into the local table
    ENCAPSULATE = 4  #: seg6 encap.red towards ``segment``


class Device(NamedTuple):
    """An interface; ``mac`` is empty on the loopback device."""

    ifindex: int
    name: str
    mtu: int
    mac: bytes
    up: bool
    running: bool


class Address(NamedTuple):
    """A /128 on an interface."""

    ifindex: int
    address: bytes


class Neighbour(NamedTuple):
    """A permanent neighbour entry."""

    ifindex: int
    address: bytes
    mac: bytes


class Route(NamedTuple):
    """An IPv6 route of the main table; one with several next hops is as many of these.

    ``segment``: 16 bytes for ENCAPSULATE, else empty; ``source``: preferred source address or empty; ``usable``:
    false while the carrier of its interface is down.
    """

    prefix: bytes
    length: int
    action: Action
    ifindex: int
    segment: bytes = b""
    source: bytes = b""
    usable: bool = True


class MarkRule(NamedTuple):
    """A rule by which packets with a mark are looked up in a table of their own before the main one."""

    priority: int
    mark: int
    table: int


class Shaper(NamedTuple):
    """A queueing discipline other than the kernel's default; rate in bytes/s and limit in bytes for ``tbf``."""

    ifindex: int
    kind: str
    rate: int = 0
    limit: int = 0


class Marker(NamedTuple):
    """Packets that leave an interface are marked (ECN) where a bucket of ``burst`` tokens has none left for them.

    ``per_hour``: tokens that come in; ``unit``: bytes a token stands for.
    """

    ifindex: int
    per_hour: int
    burst: int
    unit: int


@dataclass
class NodeState:
    """All state of one node that decides what happens to packets.

    ``filters``: nftables tables that are no marker's, as ``family name``. These and ``rules`` are those of sprayed
    ordinary traffic; a plan contains no other.
    """

    devices: set[Device] = field(default_factory=set)
    addresses: set[Address] = field(default_factory=set)
    neighbours: set[Neighbour] = field(default_factory=set)
    routes: set[Route] = field(default_factory=set)
    shapers: set[Shaper] = field(default_factory=set)
    markers: set[Marker] = field(default_factory=set)
    filters: set[str] = field(default_factory=set)
    rules: set[MarkRule] = field(default_factory=set)

    def of_device(self, index: int) -> NodeState:
        """The part that belongs to one interface, its device included."""
        return NodeState(
            {entry for entry in self.devices if entry.ifindex == index},
            {entry for entry in self.addresses if entry.ifindex == index},
            {entry for entry in self.neighbours if entry.ifindex == index},
            {entry for entry in self.routes if entry.ifindex == index},
            {entry for entry in self.shapers if entry.ifindex == index},
            {entry for entry in self.markers if entry.ifindex == index},
        )

    def beside(self, indexes: Collection[int]) -> NodeState:
        """All but the parts that belong to some interfaces."""
        return self - union(self.of_device(index) for index in indexes)

    def __sub__(self, other: NodeState) -> NodeState:
        return NodeState(
            self.devices - other.devices,
            self.addresses - other.addresses,
            self.neighbours - other.neighbours,
            self.routes - other.routes,
            self.shapers - other.shapers,
            self.markers - other.markers,
            self.filters - other.filters,
            self.rules - other.rules,
        )

    def __bool__(self) -> bool:
        what_hangs_on_ports = (self.devices, self.addresses, self.neighbours, self.routes, self.shapers, self.markers)
        return any(what_hangs_on_ports) or bool(self.filters or self.rules)

    def lines(self, names: Mapping[int, str]) -> list[str]:
        """Each entry as one line that reads like iproute2's output; ``names`` of interfaces by their index."""

        def dev(index: int) -> str:
            return f"dev {names[index]}" if index in names else f"ifindex {index}"

        out = [
            f"link {d.name} mtu {d.mtu} {'up' if d.up else 'down'}{'' if d.running else ' no carrier'}"
            for d in sorted(self.devices)
        ]
        out += [f"address {_text(a.address)}/128 {dev(a.ifindex)}" for a in sorted(self.addresses)]
        out += [
            f"neighbour {_text(n.address)} {dev(n.ifindex)} lladdr {n.mac.hex(':')}" for n in sorted(self.neighbours)
        ]
        out += [_route_line(r, dev(r.ifindex)) for r in sorted(self.routes)]
        out += [f"qdisc {s.kind} {dev(s.ifindex)} rate {s.rate} B/s limit {s.limit} B" for s in sorted(self.shapers)]
        out += [_marker_line(m, dev(m.ifindex)) for m in sorted(self.markers)]
        out += [f"nftables table {name}" for name in sorted(self.filters)]
        out += [f"rule {r.priority}: fwmark {r.mark:#x} lookup {r.table}" for r in sorted(self.rules)]
        return out


def differences(expected: NodeState, found: NodeState) -> list[str]:
    """What a node lacks and what it has too much, a line each; empty when it is as planned."""
    names = {device.ifindex: device.name for state in (found, expected) for device in state.devices}
    return [f"missing {line}" for line in (expected - found).lines(names)] + [
        f"unexpected {line}" for line in (found - expected).lines(names)
    ]


def union(parts: Iterable[NodeState]) -> NodeState:
    """All entries of several states."""
    total = NodeState()
    for part in parts:
        total.devices |= part.devices
        total.addresses |= part.addresses
        total.neighbours |= part.neighbours
        total.routes |= part.routes
        total.shapers |= part.shapers
        total.markers |= part.markers
        total.filters |= part.filters
        total.rules |= part.rules
    return total


def _marker_line(marker: Marker, dev: str) -> str:
    rate = round(marker.per_hour * marker.unit / 3600)
    return f"ecn {dev} over {rate} B/s threshold {marker.burst * marker.unit} B"


def _route_line(route: Route, dev: str) -> str:
    how = {
        Action.OTHER: "of another kind",
        Action.FORWARD: "via fe80::1",
        Action.UN: "seg6local End next-csid",
        Action.DROP: "seg6local End count",
        Action.DECAPSULATE: "seg6local End.DT6 table 255",
        Action.ENCAPSULATE: f"encap seg6 encap.red {_text(route.segment) if route.segment else ''}",
    }[route.action]
    source = f" src {_text(route.source)}" if route.source else ""
    return f"route {_text(route.prefix)}/{route.length} {how} {dev}{source}{'' if route.usable else ' linkdown'}"


def _text(address: bytes) -> str:
    return str(IPv6Address(address))
