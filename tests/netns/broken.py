"""Tests only: break a direction of a link, a link, or a switch, as the prober's elements name them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.lab import Port
from testbed.localise.elements import Element, Kind
from testbed.record import Event

ALL = Fraction(1)


@contextmanager
def breaking(fabric: NetnsFabric, element: Element, share: Fraction = ALL) -> Iterator[Event]:
    """Drop a share of what crosses an element while the block runs, at random; all of it: a black hole.

    Packets are dropped where they arrive, so no counter of a port shows it.
    """
    faults = Faults(fabric)
    with ExitStack() as stack:
        before = Event.now("fault", str(element), "issued")
        if element.kind is Kind.SWITCH and share == ALL:
            # All its ports at once.
            stack.enter_context(faults.frozen(element.subject)).wait("frozen")
        else:
            for port in _where(fabric, element):
                stack.enter_context(faults.loss(port, share=float(share), direction="in")).wait("rule in force")
        yield Event.between(
            "fault", element.subject, f"loses {float(share):.2%}", before.t_ns, Event.now("", "", "").t_ns
        )


@contextmanager
def usid_missing(fabric: NetnsFabric, switch: str, usid: str) -> Iterator[Event]:
    """Have a switch lack the route to one uSID, a neighbour's."""
    (link,) = [
        link for link in fabric.lab.topology.links if {link.a.node, link.b.node} == {switch, usid.partition(":")[0]}
    ]
    before = Event.now("fault", switch, "issued")
    with Faults(fabric).blackhole(switch, usid) as hole:
        hole.wait("route missing")
        yield Event.between("fault", link.name, "uSID missing", before.t_ns, Event.now("", "", "").t_ns)


def _where(fabric: NetnsFabric, element: Element) -> list[Port]:
    topology = fabric.lab.topology
    if element.kind is Kind.SWITCH:
        return list(topology.ports(element.subject))
    link = topology.link(element.subject)
    if element.kind is Kind.LINK:
        return [link.a, link.b]
    return [link.a if link.a.node == element.head else link.b]
