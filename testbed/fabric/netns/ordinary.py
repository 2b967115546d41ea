"""Ordinary IPv6 over a fabric of namespaces: encapsulation routes on hosts, for as long as somebody needs them.

Over several paths the kernel itself chooses per flow, by a hash, among the next hops of one route. Per packet it
cannot: there nf_tables gives each packet that leaves a random mark, and each mark has a rule and a table with the
route of one path. Where the host's own port is down and it cannot be used, the lookup goes on to the route above.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from testbed.addressing import AddressPlan
from testbed.errors import InfrastructureError, UnhealedError, UnsupportedError, UsageError
from testbed.fabric.netns import messages, spread_messages
from testbed.fabric.netns.batches import ClaimRequest, Part
from testbed.fabric.netns.claims import DOWN, GONE, port_resource, route_resource
from testbed.fabric.netns.client import RequestRefusedError
from testbed.fabric.netns.state import Action, Address, MarkRule, NodeState, Route
from testbed.fabric.protocols import OrdinaryPaths, SharedAddress, Spread
from testbed.lab import Port

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric

#: Name of the table that marks packets, with its family as a snapshot tells it.
MARKING = "ordinary"
#: The outer IPv6 header.
_OUTER_HEADER = 40
#: An SRH of one segment. H.Encaps.Red leaves it out, but Linux takes its length off the route's MTU all the same.
_OMITTED_SRH = 24
_HOST_PREFIX = 128
_LOOPBACK_INDEX = 1
#: Marks and numbers of tables begin here ("SP" and a zero word), priorities of rules before that of the main table.
_FIRST_MARK, _FIRST_PRIORITY = 0x5350_0000, 1000
_MOST_PATHS = 4096
_numbers = itertools.count(1)

Pair = tuple[str, str]


@contextlib.contextmanager
def installed(
    fabric: NetnsFabric, evs: Mapping[Pair, Sequence[int]], spread: Spread, shared: Sequence[SharedAddress] = ()
) -> Iterator[OrdinaryPaths]:
    """See :meth:`testbed.fabric.protocols.Fabric.ordinary_paths` and ``spread_paths``.

    While it lasts the routes belong to the plan, so that a link or switch that comes back is compared with it.
    """
    reason = fabric.capabilities.reason_against("spray") if spread is Spread.SPRAYED else None
    if reason is not None:
        raise UnsupportedError("this fabric cannot spray ordinary IPv6", found=reason)
    both = {(dst, src): chosen for (src, dst), chosen in evs.items()} | dict(evs)
    _check(both, spread)
    change = _Change(fabric, both, spread, shared)
    change.make()
    try:
        yield OrdinaryPaths(
            {pair: tuple(chosen) for pair, chosen in both.items()}, fabric.lab.link.mtu - _OUTER_HEADER - _OMITTED_SRH
        )
    finally:
        change.take_back()


def _check(evs: Mapping[Pair, Sequence[int]], spread: Spread) -> None:
    most = 1 if spread is Spread.PINNED else _MOST_PATHS
    for (src, dst), chosen in evs.items():
        if not 1 <= len(chosen) <= most or len(set(chosen)) != len(chosen):
            raise UsageError(
                f"ordinary IPv6 cannot be {spread} over these paths",
                where=f"{src}>{dst}",
                found=f"{len(chosen)} EVs, {len(set(chosen))} different",
                expected="one EV" if most == 1 else f"1 to {most} different EVs",
            )


@dataclass
class _Moving:
    """A shared address: the routes to it at every source, by who has it."""

    shared: SharedAddress
    by_holder: Mapping[str, Mapping[str, Sequence[Route]]]
    spread: Spread


@dataclass
class _Change:
    """What one context has changed: made, and taken back."""

    fabric: NetnsFabric
    evs: Mapping[Pair, Sequence[int]]
    spread: Spread
    shared: Sequence[SharedAddress]
    _id: str = field(default_factory=lambda: f"ordinary-{os.getpid()}-{next(_numbers)}")
    _requests: list[ClaimRequest] = field(default_factory=list)
    _planned: dict[str, NodeState] = field(default_factory=dict)

    def make(self) -> None:
        """Install all or nothing. Raises UsageError, InfrastructureError."""
        for src in dict.fromkeys(src for src, _ in self.evs):
            self._source(src)
        for shared in self.shared:
            self._share(shared)
        for node, state in self._planned.items():
            taken = {route.prefix for route in self.fabric.plan.nodes[node].routes} & {r.prefix for r in state.routes}
            if taken:
                dst = next(dst for src, dst in self.evs if src == node and self._address(dst) in taken)
                raise UsageError(f"ordinary IPv6 from {node} to {dst} already has a path", expected="one at a time")
        try:
            self.fabric.client.claim(self._id, self._what(), self._requests)
        except RequestRefusedError as error:
            raise InfrastructureError(
                "another process has a path for ordinary IPv6 between these hosts on this fabric",
                found=error.reason,
                remedy=f"wait for it, or end it: `testbed status {self.fabric.name}` lists changes in force",
            ) from error
        for node, state in self._planned.items():
            of_node = self.fabric.plan.nodes[node]
            of_node.routes |= state.routes
            of_node.rules |= state.rules
            of_node.filters |= state.filters
            of_node.addresses |= state.addresses

    def take_back(self) -> None:
        """Remove everything. Raises UnhealedError for what stays."""
        for node, state in self._planned.items():
            of_node = self.fabric.plan.nodes[node]
            of_node.routes -= state.routes
            of_node.rules -= state.rules
            of_node.filters -= state.filters
            of_node.addresses -= state.addresses
        for shared in self.shared:
            self.fabric.shared.pop(str(shared.address), None)
        try:
            # Marks first: without its route a marked packet would take the main table's for a moment.
            self.fabric.client.release(self._id, [request.resource for request in reversed(self._requests)])
        except InfrastructureError as error:
            raise UnhealedError("a route for ordinary IPv6 cannot be removed", found=str(error)) from error

    def _what(self) -> str:
        return f"{self.spread} ordinary paths " + " ".join(f"{src}>{dst}" for src, dst in self.evs)

    def _address(self, host: str) -> bytes:
        return self.fabric.addresses.nic_address(host).packed

    def _plan_of(self, node: str) -> NodeState:
        return self._planned.setdefault(node, NodeState())

    def _routes(self, src: str, dst: str, address: bytes) -> list[Route]:
        return [_route(self.fabric, src, dst, address, ev) for ev in self.evs[src, dst]]

    def _source(self, src: str) -> None:
        """All that a host needs to send to the others."""
        destinations = [dst for each, dst in self.evs if each == src]
        most = 0
        for dst in destinations:
            routes = self._routes(src, dst, self._address(dst))
            most = max(most, len(routes))
            self._plan_of(src).routes.update(routes)
            self._requests.append(
                ClaimRequest(
                    route_resource(src, routes[0]),
                    do=self._leading(src, routes),
                    base=self._leading_nowhere(src, routes),
                    alone=True,
                    after=self._ports(src),
                    tolerated=GONE | DOWN,
                )
            )
        if self.spread is Spread.SPRAYED:
            counts = [(self._address(dst), len(self.evs[src, dst])) for dst in destinations]
            for shared in self.shared:
                if src not in shared.hosts:
                    most = max(most, *(len(self.evs[src, holder]) for holder in shared.hosts))
                    counts.append((shared.address.packed, min(len(self.evs[src, holder]) for holder in shared.hosts)))
            self._mark(src, counts, most)

    def _mark(self, src: str, counts: Sequence[tuple[bytes, int]], most: int) -> None:
        namespace = self.fabric.plan.namespaces[src]
        entries = [MarkRule(_FIRST_PRIORITY + number, *(_FIRST_MARK + number,) * 2) for number in range(most)]
        self._plan_of(src).rules.update(entries)
        self._plan_of(src).filters.add(f"ip6 {MARKING}")
        self._requests += [
            ClaimRequest(
                f"rules {src}",
                do=[Part(namespace, [spread_messages.rule(entry) for entry in entries])],
                base=[Part(namespace, [spread_messages.rule(entry, delete=True) for entry in entries])],
                alone=True,
                tolerated=GONE,
            ),
            ClaimRequest(
                f"marks {src} {MARKING}",
                do=[Part(namespace, spread_messages.marking(MARKING, counts, _FIRST_MARK))],
                base=[Part(namespace, spread_messages.no_marking(MARKING))],
                alone=True,
            ),
        ]

    def _share(self, shared: SharedAddress) -> None:
        """An address on several hosts, and routes from everywhere else to the first of them."""
        for host in shared.hosts:
            entry = Address(_LOOPBACK_INDEX, shared.address.packed)
            namespace = self.fabric.plan.namespaces[host]
            self._plan_of(host).addresses.add(entry)
            self._requests.append(
                ClaimRequest(
                    f"address {host} {shared.address}",
                    do=[Part(namespace, [messages.address(entry)])],
                    base=[Part(namespace, [spread_messages.address_delete(entry)])],
                    alone=True,
                )
            )
        sources = [src for src in dict.fromkeys(src for src, _ in self.evs) if src not in shared.hosts]
        by_holder = {
            holder: {src: self._routes(src, holder, shared.address.packed) for src in sources}
            for holder in shared.hosts
        }
        for src, routes in by_holder[shared.hosts[0]].items():
            self._plan_of(src).routes.update(routes)
        moving = _Moving(shared, by_holder, self.spread)
        self.fabric.shared[str(shared.address)] = lambda holder: self._held_by(moving, holder)
        self._requests.append(self._held_by(moving, shared.hosts[0]))

    def _held_by(self, moving: _Moving, holder: str) -> ClaimRequest:
        """The claim by which packets to a shared address go to one of its holders; that of a fault goes on top."""
        if holder not in moving.by_holder:
            raise UsageError(
                f"{holder} does not hold {moving.shared.address}", expected=" or ".join(moving.shared.hosts)
            )
        routes = moving.by_holder[holder]
        return ClaimRequest(
            shared_resource(moving.shared.address),
            do=[part for src, several in routes.items() for part in self._leading(src, several)],
            base=[part for src, several in routes.items() for part in self._leading_nowhere(src, several)],
            after=[port for src in routes for port in self._ports(src)],
            tolerated=GONE | DOWN,
        )

    def _leading(self, src: str, routes: Sequence[Route]) -> list[Part]:
        namespace = self.fabric.plan.namespaces[src]
        if self.spread is Spread.PINNED:
            return [Part(namespace, [messages.route(routes[0])])]
        requests = [spread_messages.multipath(routes)]
        if self.spread is Spread.SPRAYED:
            requests += [spread_messages.in_table(route, _FIRST_MARK + at) for at, route in enumerate(routes)]
        return [Part(namespace, requests)]

    def _leading_nowhere(self, src: str, routes: Sequence[Route]) -> list[Part]:
        requests = [messages.prefix_delete(routes[0])]
        if self.spread is Spread.SPRAYED:
            requests += [spread_messages.out_of_table(route, _FIRST_MARK + at) for at, route in enumerate(routes)]
        return [Part(self.fabric.plan.namespaces[src], requests)]

    def _ports(self, src: str) -> list[str]:
        return [port_resource(port) for port in self.fabric.plan.ports if port.node == src]


def shared_resource(address: IPv6Address) -> str:
    """Which of its holders packets to a shared address go to."""
    return f"shared {address}"


def _route(fabric: NetnsFabric, src: str, dst: str, address: bytes, ev: int) -> Route:
    addresses: AddressPlan = fabric.addresses
    return Route(
        address,
        _HOST_PREFIX,
        Action.ENCAPSULATE,
        # Not where packets leave: that is looked up anew for the outer destination, which leads to the same port. It
        # decides the outer source address.
        fabric.plan.ports[Port(src, f"p{addresses.path(src, dst, ev).plane}")],
        segment=addresses.ordinary_destination(src, dst, ev).packed,
        source=addresses.nic_address(src).packed,
    )
