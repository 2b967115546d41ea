"""The fabric's edge: what a workload counted at its sockets against what the hosts' kernels counted."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from testbed.ledger.balance import NodeBalance
from testbed.record import Drop, HostTraffic

RING_FULL = "receive ring full"
UNREAD = "in the receive ring when its endpoint ended"
REFUSED = "refused by its own kernel"
NOBODY = "nobody listened any more"
KILLED = "its endpoint was killed"


@dataclass(frozen=True)
class Edge:
    """What became of packets at the hosts.

    Attributes:
        sent: packets of the workload that were offered, those refused included.
        delivered: packets that its sockets received.
        drops: where hosts lost some.
        others_sent: packets that hosts sent and the workload did not.
        others_received: packets that hosts received and no socket of the workload saw.
        remainders: host → packets of which nothing tells; below 0 where more is told than there were.
    """

    sent: int
    delivered: int
    drops: tuple[Drop, ...]
    others_sent: int
    others_received: int
    remainders: Mapping[str, int]


def edge(
    hosts: Mapping[str, NodeBalance],
    traffic: Iterable[HostTraffic],
    *,
    unheard: Mapping[str, int],
    others_elsewhere: int,
) -> Edge:
    """Hold the workload's counts against the kernels'.

    Args:
        hosts: every host's balance.
        traffic: what the workload counted on its hosts.
        unheard: host → packets for which no socket was there, as its kernel counted them.
        others_elsewhere: packets of others that did not begin at a host, such as ICMP errors of switches.
    """
    counted = {one.host: one for one in traffic}
    sent = delivered = 0
    drops: list[Drop] = []
    remainders: dict[str, int] = {}
    others, surplus = {}, {}
    for name, host in hosts.items():
        one = counted.get(name, HostTraffic(name))
        taken = host.originated if one.sent is None else one.sent
        others[name] = host.originated - taken
        sent += taken + sum(one.refused.values())
        delivered += one.received - sum(one.discarded.values())
        drops += _refused(one)
        drops += [Drop(name, cause, packets, name) for cause, packets in one.discarded.items()]
        drops += [
            Drop(name, RING_FULL, one.ring_dropped, name),
            Drop(name, UNREAD, one.unread, name),
        ]
        surplus[name] = host.arrived - one.received - one.ring_dropped - one.unread
        # Not all of them: until the ring is closed, too, it still sees what its kernel takes for a foreign protocol.
        nobody = min(max(surplus[name], 0), unheard.get(name, 0))
        drops.append(Drop(name, NOBODY, nobody, name))
        surplus[name] -= nobody
        if one.sent is None and surplus[name] > 0:
            drops.append(Drop(name, KILLED, surplus.pop(name), name))
        if others[name] < 0:
            remainders[name] = others.pop(name)
    others_sent = others_elsewhere + sum(others.values())
    received = _others_received(surplus, others_sent)
    for name, packets in surplus.items():
        remainders[name] = remainders.get(name, 0) + packets
    kept = tuple(drop for drop in drops if drop.packets)
    return Edge(sent, delivered, kept, others_sent, received, {n: p for n, p in remainders.items() if p})


def _refused(one: HostTraffic) -> list[Drop]:
    drops = []
    for (plane, code), packets in one.refused.items():
        port = frozenset[str]() if plane is None else frozenset({f"p{plane}"})
        hop = one.host if plane is None else f"{one.host}:p{plane}"
        name = errno.errorcode.get(code, str(code))
        drops.append(Drop(hop, f"{REFUSED}: {name}", packets, one.host, leaving=port))
    return drops


def _others_received(surplus: dict[str, int], others_sent: int) -> int:
    """Take what can be others' packets out of the surplus: not more than they sent."""
    received = 0
    for name, packets in surplus.items():
        taken = min(max(packets, 0), others_sent - received)
        surplus[name] -= taken
        received += taken
    return received
