"""Tests only: break a direction of a link, a link, a switch or one uSID of a switch, with the program nft."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction

from tests.netns.loss import nft

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.lab import Port
from testbed.localise.elements import Element, Kind
from testbed.record import Event

_numbers = itertools.count()
ALL = Fraction(1)


@contextmanager
def breaking(fabric: NetnsFabric, element: Element, share: Fraction = ALL) -> Iterator[Event]:
    """Drop a share of what crosses an element while the block runs, at random; all of it: a black hole.

    Packets are dropped where they arrive, so no counter of a port shows it.
    """
    with ExitStack() as stack:
        before = Event.now("fault", str(element), "issued")
        for ports in _where(fabric, element):
            stack.enter_context(_dropping(fabric, ports, share))
        yield Event.between(
            "fault", element.subject, f"loses {float(share):.2%}", before.t_ns, Event.now("", "", "").t_ns
        )


@contextmanager
def usid_missing(fabric: NetnsFabric, switch: str, usid: str) -> Iterator[Event]:
    """Have a switch drop packets that go on to one uSID, a neighbour's: as if it had no route there."""
    (link,) = [
        link for link in fabric.lab.topology.links if {link.a.node, link.b.node} == {switch, usid.partition(":")[0]}
    ]
    out = link.a if link.a.node == switch else link.b
    before = Event.now("fault", switch, "issued")
    value = fabric.addresses.usid(usid)
    # 24 bytes into the IPv6 header stands its destination, of which the block is 32 bits; the switch has shifted.
    with _dropping(fabric, [out], ALL, match=f"@nh,{24 * 8 + 32},16 == {value:#06x} ", hook="egress"):
        yield Event.between("fault", link.name, "uSID missing", before.t_ns, Event.now("", "", "").t_ns)


def _where(fabric: NetnsFabric, element: Element) -> list[list[Port]]:
    topology = fabric.lab.topology
    if element.kind is Kind.SWITCH:
        return [list(topology.ports(element.subject))]
    link = topology.link(element.subject)
    if element.kind is Kind.LINK:
        return [[link.a], [link.b]]
    return [[link.a if link.a.node == element.head else link.b]]


@contextmanager
def _dropping(
    fabric: NetnsFabric, ports: Sequence[Port], share: Fraction, *, match: str = "", hook: str = "ingress"
) -> Iterator[None]:
    table = f"broken{next(_numbers)}"
    chance = "" if share == ALL else f"numgen random mod {share.denominator} < {share.numerator} "
    node = fabric.node(ports[0].node)
    rules = f"add table netdev {table}; "
    for number, port in enumerate(ports):
        rules += (
            f"add chain netdev {table} c{number} {{ type filter hook {hook} device {port.name} priority -10; }}; "
            f"add rule netdev {table} c{number} meta protocol ip6 {match}{chance}counter drop; "
        )
    node.run([nft(), rules])
    try:
        yield
    finally:
        node.run([nft(), "delete", "table", "netdev", table])
