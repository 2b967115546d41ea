"""Ordinary IPv6 over a fabric of namespaces: encapsulation routes on hosts, for as long as somebody needs them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from testbed.addressing import AddressPlan
from testbed.errors import InfrastructureError, UnhealedError, UsageError
from testbed.fabric.netns import messages
from testbed.fabric.netns.batches import ClaimRequest, Part
from testbed.fabric.netns.claims import DOWN, GONE, port_resource, route_resource
from testbed.fabric.netns.connection import RequestRefusedError
from testbed.fabric.netns.state import Action, Route
from testbed.fabric.protocols import OrdinaryPaths
from testbed.lab import Port

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric

#: The outer IPv6 header.
_OUTER_HEADER = 40
#: An SRH of one segment. H.Encaps.Red leaves it out, but Linux takes its length off the route's MTU all the same.
_OMITTED_SRH = 24
_HOST_PREFIX = 128
_numbers = itertools.count(1)


@contextlib.contextmanager
def installed(fabric: NetnsFabric, evs: Mapping[tuple[str, str], int]) -> Iterator[OrdinaryPaths]:
    """See :meth:`testbed.fabric.protocols.Fabric.ordinary_paths`.

    While it lasts the routes belong to the plan, so that a link or switch that comes back is compared with it.
    """
    both = {(dst, src): ev for (src, dst), ev in evs.items()} | dict(evs)
    wanted = [(src, dst, _route(fabric, src, dst, ev)) for (src, dst), ev in sorted(both.items())]
    for src, dst, route in wanted:
        if any(route.prefix == other.prefix for other in fabric.plan.nodes[src].routes):
            raise UsageError(f"ordinary IPv6 from {src} to {dst} already has a path", expected="one at a time")
    change = _Change(fabric, wanted)
    change.make()
    try:
        yield OrdinaryPaths(both, fabric.lab.link.mtu - _OUTER_HEADER - _OMITTED_SRH)
    finally:
        change.take_back()


class _Change:
    """The routes of one context: made, and taken back."""

    def __init__(self, fabric: NetnsFabric, wanted: list[tuple[str, str, Route]]) -> None:
        self._fabric = fabric
        self._wanted = wanted
        self._id = f"ordinary-{os.getpid()}-{next(_numbers)}"
        self._what = "ordinary paths " + " ".join(f"{src}>{dst}" for src, dst, _ in wanted)

    def make(self) -> None:
        """Install all routes or none. Raises InfrastructureError."""
        requests = [self._request(src, route) for src, _, route in self._wanted]
        try:
            self._fabric.client.claim(self._id, self._what, requests)
        except RequestRefusedError as error:
            raise InfrastructureError(
                "another process has a path for ordinary IPv6 between these hosts on this fabric",
                found=error.reason,
                remedy=f"wait for it, or end it: `testbed status {self._fabric.name}` lists changes in force",
            ) from error
        for src, _, route in self._wanted:
            self._fabric.plan.nodes[src].routes.add(route)

    def take_back(self) -> None:
        """Remove the routes. Raises UnhealedError when one stays."""
        for src, _, route in self._wanted:
            self._fabric.plan.nodes[src].routes.discard(route)
        resources = [route_resource(src, route) for src, _, route in self._wanted]
        try:
            self._fabric.client.release(self._id, resources)
        except InfrastructureError as error:
            raise UnhealedError("a route for ordinary IPv6 cannot be removed", found=str(error)) from error

    def _request(self, src: str, route: Route) -> ClaimRequest:
        """A route that comes and goes with its port, and is nobody else's meanwhile."""
        namespace = self._fabric.plan.namespaces[src]
        ports = {index: port for port, index in self._fabric.plan.ports.items() if port.node == src}
        return ClaimRequest(
            route_resource(src, route),
            do=[Part(namespace, [messages.route(route)])],
            base=[Part(namespace, [messages.prefix_delete(route)])],
            alone=True,
            after=[port_resource(ports[route.ifindex])],
            tolerated=GONE | DOWN,
        )


def _route(fabric: NetnsFabric, src: str, dst: str, ev: int) -> Route:
    addresses: AddressPlan = fabric.addresses
    return Route(
        addresses.nic_address(dst).packed,
        _HOST_PREFIX,
        Action.ENCAPSULATE,
        # Not where packets leave: that is looked up anew for the outer destination, which leads to the same port. It
        # decides the outer source address.
        fabric.plan.ports[Port(src, f"p{addresses.path(src, dst, ev).plane}")],
        segment=addresses.ordinary_destination(src, dst, ev).packed,
        source=addresses.nic_address(src).packed,
    )
