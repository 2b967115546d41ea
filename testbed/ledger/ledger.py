"""The ledger of one run: two readings of a fabric's counters and a workload's own, added up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from testbed.lab import Lab, Tier
from testbed.ledger.balance import NodeBalance, balance
from testbed.ledger.changes import Changes
from testbed.ledger.edges import edge
from testbed.record import CounterReading, Counts, Drop, HostTraffic

#: A frame is this much longer than the IPv6 packet in it.
_ETHERNET_HEADER = 14


@dataclass(frozen=True)
class Remainder:
    """Packets of which no counter tells: ``place`` is the part of the fabric that they went into and did not leave.

    Below 0: so many more came out of it than went in.
    """

    place: str
    packets: int


@dataclass(frozen=True)
class Ledger:
    """Where the packets of a run ended.

    Attributes:
        sent: packets that the workload offered, those that its own kernel refused included.
        delivered: packets that its sockets received, copies included.
        drops: packets lost, by place and cause, the most first.
        in_flight: packets that were still in queues.
        remainders: what is left, by place.
        others_sent, others_received: packets on the fabric that were not the workload's.
        copies: packets that fault rules made beside those that were sent.
        unknown: why this decides nothing; empty where it does.
    """

    sent: int
    delivered: int
    drops: tuple[Drop, ...]
    in_flight: int
    remainders: tuple[Remainder, ...] = ()
    others_sent: int = 0
    others_received: int = 0
    copies: int = 0
    unknown: str = ""

    @property
    def dropped(self) -> int:
        """Packets lost at named places."""
        return sum(drop.packets for drop in self.drops)

    @property
    def unexplained(self) -> int:
        """Packets that went in somewhere and of which nothing tells."""
        return sum(max(remainder.packets, 0) for remainder in self.remainders)


def draw_up(
    lab: Lab,
    before: CounterReading,
    after: CounterReading,
    traffic: Sequence[HostTraffic],
    *,
    smallest: int,
    extra: Iterable[Drop] = (),
) -> Ledger:
    """The ledger of a run.

    Args:
        lab: on what fabric.
        before, after: its counters before the first packet, and when the last was gone.
        traffic: what the workload counted, a row for each of its hosts.
        smallest: bytes of the workload's smallest packet, the outermost IPv6 header included.
        extra: packets that others counted as dropped, such as fault rules that are gone again. Below 0: copies that
            were made.
    """
    topology = lab.topology
    changes = Changes(before, after)
    incomplete = [node for node in topology.nodes if not changes.node(node).complete]
    extra = _not_read(extra, after)
    queue_packets = 0 if lab.queue_bytes is None else lab.queue_bytes // (smallest + _ETHERNET_HEADER) + 1
    balances = {
        node: balance(
            changes.node(node),
            is_host=topology.tier(node) is Tier.HOST,
            extra=[drop for drop in extra if drop.node == node],
            queue_packets=queue_packets,
            peers=_dark_peers(lab, changes, node),
        )
        for node in topology.nodes
    }
    hosts = {name: balances[name] for name in topology.hosts}
    switches = [balances[name] for name in topology.switches]
    edges = edge(
        hosts,
        traffic,
        unheard={name: changes.node(name).ip("InUnknownProtos") for name in hosts},
        others_elsewhere=sum(one.originated for one in switches),
    )
    drops = [*(drop for one in balances.values() for drop in one.drops if drop.packets > 0), *edges.drops]
    remainders = [*_remainders(balances.values()), *_on_links(lab, changes)]
    remainders += [Remainder(f"{host}, at its sockets", packets) for host, packets in edges.remainders.items()]
    return Ledger(
        edges.sent,
        edges.delivered,
        tuple(sorted(drops, key=lambda drop: -drop.packets)),
        sum(one.waiting for one in balances.values()),
        tuple(remainders),
        edges.others_sent,
        edges.others_received + sum(one.arrived for one in switches),
        -sum(min(drop.packets, 0) for one in balances.values() for drop in one.drops),
        _unknown(before, after, incomplete, changes, remainders),
    )


def _not_read(extra: Iterable[Drop], after: CounterReading) -> list[Drop]:
    """Without rules that are still there: the reading has them."""
    there = {(row.node, f"rule {row.name}") for row in after.rows if row.counts is Counts.RULE}
    return [drop for drop in extra if (drop.node, drop.cause) not in there]


def _dark_peers(lab: Lab, changes: Changes, node: str) -> frozenset[str]:
    """Ports of a node whose other end lost carrier."""
    topology = lab.topology
    return frozenset(
        port.name
        for port in topology.ports(node)
        if changes.node((peer := topology.peer(port)).node).value(Counts.PORT, peer.name, "carrier losses")
    )


def _remainders(balances: Iterable[NodeBalance]) -> Iterator[Remainder]:
    for one in balances:
        if one.remainder:
            yield Remainder(f"{one.node}, {one.where}" if one.where else one.node, one.remainder)


def _on_links(lab: Lab, changes: Changes) -> Iterator[Remainder]:
    """What one end of a link sent and the other did not receive."""
    for link in lab.topology.links:
        for near, far in ((link.a, link.b), (link.b, link.a)):
            sent = changes.node(near.node).value(Counts.PORT, near.name, "sent")
            received = changes.node(far.node).value(Counts.PORT, far.name, "received")
            if sent != received:
                yield Remainder(f"{link.name}, from {near.node}", sent - received)


def _unknown(
    before: CounterReading,
    after: CounterReading,
    incomplete: Sequence[str],
    changes: Changes,
    remainders: Iterable[Remainder],
) -> str:
    if incomplete:
        return f"no counters of {', '.join(incomplete[:8])}"
    if not before.settled or not after.settled:
        when = "before" if not before.settled else "after"
        return f"the fabric did not come to rest {when} the run"
    if changes.reset:
        return f"counters began anew during the run: {', '.join(changes.reset[:8])}"
    more = [f"{one.place} by {-one.packets}" for one in remainders if one.packets < 0]
    return f"more came out than went in: {', '.join(more[:8])}" if more else ""
