"""What comes into a node equals what leaves it, what it drops and what it holds; the rest is a remainder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from testbed.ledger.changes import NodeChanges
from testbed.record import Counts, Drop

QUEUE_FULL = "queue full"
NO_CARRIER = "the link was down"
NOT_TAKEN = "not taken at the other end: larger than its MTU, or its kernel's backlog was full"
WRONG_ADDRESS = "for another link-layer address: its neighbour was missing at the other end"
FOREIGN = "no route for its uSID"
#: What rules of faults count, at a port: ``dropped arriving``, ``duplicated leaving``, …
DROPPED, DUPLICATED, ARRIVING, LEAVING = "dropped", "duplicated", "arriving", "leaving"
BY_FAULT, COPIES = "dropped by a fault", "copied by a fault"
PURGED = "purged from the queue when carrier was lost"
_ON_ARRIVAL, _IN_ROUTING, _ON_LEAVING = "before it was routed", "when it was routed", "after it was routed"
_IP_CAUSES = {
    "InHdrErrors": "hop limit exceeded, or a malformed IPv6 header",
    "InTooBigErrors": "larger than the MTU of the next link",
    "InNoRoutes": "no IPv6 route",
    "InAddrErrors": "no valid IPv6 address",
    "InTruncatedPkts": "truncated",
    "InDiscards": "discarded by IPv6",
    "InUnknownProtos": "for the switch itself, with a protocol it does not know",
}


@dataclass(frozen=True)
class NodeBalance:
    """What became of the packets of one node.

    Attributes:
        node: which.
        drops: where it lost some, by its counters.
        originated: packets that began here.
        arrived: packets that ended here as they should: those for the node itself.
        waiting: packets that its queues hold more than before.
        remainder: packets that went in and of which nothing tells; below 0 where more is told than went in.
        where: which part of the node the remainder is in, where its counters tell.
    """

    node: str
    drops: tuple[Drop, ...]
    originated: int
    arrived: int
    waiting: int
    remainder: int
    where: str


def balance(
    changes: NodeChanges, *, is_host: bool, extra: Iterable[Drop], queue_packets: int, peers: frozenset[str]
) -> NodeBalance:
    """Add one node up.

    Args:
        changes: what it counted.
        is_host: everything that reaches a host has arrived, and what its own queues refuse its senders are told.
        extra: packets that others counted as dropped here, such as rules that are gone again.
        queue_packets: the most packets that the queue of a port can hold.
        peers: its ports whose other end lost carrier.
    """
    by_rules = [*_rules(changes), *extra]
    drops = [*_ports(changes, is_host=is_host, peers=peers), *by_rules]
    wrong_address = changes.total(Counts.PORT, "wrong address")
    came, originated = changes.total(Counts.PORT, "received"), changes.ip("OutRequests")
    full, waiting = changes.total(Counts.QUEUE, "full"), changes.total(Counts.QUEUE, "waiting")
    if is_host:
        # A packet ring sees what is for another link-layer address, too.
        arrived = changes.ip("InReceives") + wrong_address
    else:
        drops += _routing(changes)
        # Multicast is delivered without being counted as that, unless somebody listens.
        arrived = max(changes.ip("InMcastPkts"), changes.ip("InDelivers"))
    left = changes.total(Counts.PORT, "sent") + waiting + (full if is_host else 0)
    lost = sum(drop.packets for drop in drops)
    ruled = sum(drop.packets for drop in by_rules)
    remainder = came + originated - left - arrived - lost
    # Those of it that came in and were not routed, and those that were routed and did not leave.
    unread = came - changes.ip("InReceives") - wrong_address
    at_ports = changes.total(Counts.PORT, "sent") + changes.total(Counts.PORT, "not sent") + full + waiting
    unsent = changes.ip("OutForwDatagrams") + originated - at_ports
    purged = _purged(changes, min(remainder - max(unread - ruled, 0), unsent), queue_packets)
    if purged is not None:
        drops.append(purged)
        remainder -= purged.packets
        unsent -= purged.packets
    # A packet too long for the next link counts as forwarded on some kernels.
    known = remainder > 0 and not ruled and not changes.ip("InTooBigErrors")
    return NodeBalance(
        changes.name,
        tuple(drop for drop in drops if drop.packets),
        originated - (full if is_host else 0),
        arrived,
        waiting,
        remainder,
        {unread: _ON_ARRIVAL, unsent: _ON_LEAVING, remainder - unread - unsent: _IN_ROUTING}.get(remainder, "")
        if known
        else "",
    )


def _ports(changes: NodeChanges, *, is_host: bool, peers: frozenset[str]) -> Iterator[Drop]:
    node = changes.name
    for port, packets in changes.each(Counts.PORT, "not sent"):
        dark = port in peers or changes.value(Counts.PORT, port, "carrier losses")
        yield Drop(f"{node}:{port}", NO_CARRIER if dark else NOT_TAKEN, packets, node, leaving=frozenset({port}))
    if is_host:
        return
    for port, packets in changes.each(Counts.QUEUE, "full"):
        yield Drop(f"{node}:{port}", QUEUE_FULL, packets, node, leaving=frozenset({port}))
    for port, packets in changes.each(Counts.PORT, "wrong address"):
        yield Drop(f"{node}:{port}", WRONG_ADDRESS, packets, node, arriving=frozenset({port}))


def _rules(changes: NodeChanges) -> Iterator[Drop]:
    node = changes.name
    for name, counter, packets in changes.rules():
        if counter == f"{DROPPED} {ARRIVING}":
            yield Drop(f"{node}:{name}", BY_FAULT, packets, node, arriving=frozenset({name}))
        elif counter == f"{DROPPED} {LEAVING}":
            yield Drop(f"{node}:{name}", BY_FAULT, packets, node, leaving=frozenset({name}))
        elif counter == f"{DUPLICATED} {LEAVING}":
            yield Drop(f"{node}:{name}", COPIES, -packets, node, leaving=frozenset({name}))
        elif counter.startswith("drop"):
            yield Drop(node, f"rule {name}", packets, node)


def _routing(changes: NodeChanges) -> Iterator[Drop]:
    node = changes.name
    yield Drop(node, FOREIGN, changes.value(Counts.USID, "", "foreign"), node)
    for counter, cause in _IP_CAUSES.items():
        yield Drop(node, cause, changes.ip(counter), node)


def _purged(changes: NodeChanges, packets: int, queue_packets: int) -> Drop | None:
    """Packets that can only have been in a queue that the kernel emptied: it counts none when carrier goes.

    A queue can be taken for their place only if its port lost carrier, and if it could hold that many. ``packets`` were
    routed and did not leave.
    """
    shaped = {port for port, _ in changes.each(Counts.QUEUE, "full")}
    lost = {port: times for port, times in changes.each(Counts.PORT, "carrier losses") if times and port in shaped}
    if not 0 < packets <= queue_packets * sum(lost.values()):
        return None
    node = changes.name
    ports = frozenset(lost)
    drop = Drop(node, PURGED, packets, node, leaving=ports)
    if len(ports) == 1:
        return replace(drop, hop=f"{node}:{next(iter(ports))}")
    return replace(drop, cause=f"{PURGED}, of {', '.join(sorted(ports))}")
