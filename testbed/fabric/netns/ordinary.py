"""Ordinary IPv6 over a fabric of namespaces: encapsulation routes on hosts, for as long as somebody needs them."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from testbed.addressing import AddressPlan
from testbed.errors import InfrastructureError, UnhealedError, UsageError
from testbed.fabric.netns import build, messages
from testbed.fabric.netns.batches import Batch
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
        self._key = "ordinary paths " + " ".join(f"{src}>{dst}" for src, dst, _ in wanted)

    def make(self) -> None:
        """Install all routes or none. Raises InfrastructureError."""
        client = self._fabric.client
        client.undo(self._key, self._removal(self._wanted))
        batches = [
            (self._fabric.plan.namespaces[src], messages.join([messages.route(route, exclusive=True)]))
            for src, _, route in self._wanted
        ]
        done = client.netlink(batches)
        if done.refusals:
            # Another process's route stays: only what was installed here goes.
            refused = {refusal.batch for refusal in done.refusals}
            client.netlink(self._removal([entry for n, entry in enumerate(self._wanted) if n not in refused]))
            client.undone(self._key)
            first = done.refusals[0]
            if first.errno == errno.EEXIST:
                src, dst, _ = self._wanted[first.batch]
                raise InfrastructureError(
                    f"another process has a path for ordinary IPv6 from {src} to {dst} on this fabric",
                    remedy=f"wait for it, or end it: `testbed status {self._fabric.name}` lists changes in force",
                )
            names = {number: node for node, number in self._fabric.plan.namespaces.items()}
            build.raise_refusals(done, batches, names, "encapsulation")
        for src, _, route in self._wanted:
            self._fabric.plan.nodes[src].routes.add(route)

    def take_back(self) -> None:
        """Remove the routes. Raises UnhealedError when one stays."""
        for src, _, route in self._wanted:
            self._fabric.plan.nodes[src].routes.discard(route)
        refusals = self._fabric.client.netlink(self._removal(self._wanted)).refusals
        if refusals:
            src, dst, _ = self._wanted[refusals[0].batch]
            raise UnhealedError(
                f"the route for ordinary IPv6 from {src} to {dst} cannot be removed",
                found=f"{errno.errorcode.get(refusals[0].errno, refusals[0].errno)} {refusals[0].text}",
            )
        self._fabric.client.undone(self._key)

    def _removal(self, entries: list[tuple[str, str, Route]]) -> list[Batch]:
        """Install and delete: succeeds whether or not the route is there, so that what is gone is not unhealed."""
        return [
            (self._fabric.plan.namespaces[src], messages.join([messages.route(route), messages.route_delete(route)]))
            for src, _, route in entries
        ]


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
