"""Rules that do something to some packets at a port: each a table of nf_tables of its own, so that any compose.

The chain at the port picks the packets that a rule is about and sends them to the chain that numbers them, counts those
chosen and acts on them. The counter has a name, so that it can still be read when no packet comes by it any more.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence

from testbed.addressing import AddressPlan
from testbed.errors import UsageError
from testbed.fabric.conditions import AtRandom, Corrupt, Drop, Duplicate, Every, MarkEcn, Rule, Selection
from testbed.fabric.netns import nftables as nft
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.netlink import attributes, messages
from testbed.lab import Port, Topology

#: Names of every such table's chains, counters and set.
_PORT, _CHOSEN, _COUNTER, _REST, _NUMBERS = "port", "chosen", "packets", "rest", "numbers"
PREFIX = "fault_"
#: Before the markers of ports, which are to see what leaves.
_PRIORITY = -10
_IPV6 = 0x86DD
_SOURCE, _DESTINATION, _ADDRESS_BYTES, _HEADER_BYTES = 8, 24, 16, 40
_BLOCK_BYTES, _USID_BYTES, _MOST_USIDS = 4, 2, 6
#: Probabilities are told in parts of this.
_PARTS = 1_000_000_000
#: The ECN field among the first 16 bits of an IPv6 header.
_ECN, _NOT_ECN = b"\x00\x30", b"\xff\xcf"
#: Of packets that are copies; "MRC" in ASCII, in case somebody else marks.
_COPY = 0x4D5243
#: Without a period a list of packets starts over after this many.
_ENDLESS = 0xFFFF_FFFF


def table_of(rule: Rule, fault: str, number: int) -> str:
    """The name of a rule's table: of a fault, and the number of the rule within it."""
    way = "out" if rule.outgoing else "in"
    return f"{PREFIX}{fault}_{number}_{way}_{rule.port.name}".replace("-", "_")


def is_outgoing(table: str) -> bool:
    """Whether a rule's table is about packets that leave by its port."""
    return "_out_" in table


def install(rule: Rule, table: str, ifindex: int, about: Sequence[bytes], *, device: str) -> list[bytes]:
    """Requests, to be carried out together, that put a rule in force.

    Args:
        rule: what it is.
        table: its name.
        ifindex: of the port.
        about: alternatives for which packets it is about, as :func:`packets_of` gives them.
        device: the port's name in its namespace.
    """
    hook = nft.egress_chain if rule.outgoing else nft.ingress_chain
    requests = [nft.table(table, exclusive=True), nft.counter(table, _COUNTER), nft.chain(table, _CHOSEN)]
    if isinstance(rule.which, AtRandom | Every):
        chosen = _chosen(rule.which)
    else:
        requests += nft.number_set(table, _NUMBERS, sorted(set(rule.which.packets)))
        chosen = nft.number_of_packet(rule.which.period or _ENDLESS) + nft.is_in(_NUMBERS)
    before = _before(rule)
    counted = nft.use(nft.COUNTER, _COUNTER)
    requests.append(nft.rule(table, _CHOSEN, chosen + counted + _effect(rule, ifindex)))
    requests.append(hook(table, _PORT, device, _PRIORITY))
    for alternative in about:
        requests.append(nft.rule(table, _PORT, nft.protocol(_IPV6) + alternative + before + nft.go_to(_CHOSEN)))
    if rule.everything:
        rest = nft.use(nft.COUNTER, _REST) + nft.drop()
        requests += [nft.counter(table, _REST), nft.rule(table, _PORT, rest)]
    return requests


def remove(table: str) -> list[bytes]:
    """Requests that remove a rule whether or not it is there."""
    return [nft.table(table), nft.table_delete(table)]


def suspend(table: str) -> list[bytes]:
    """Requests after which no further packet comes by a rule; its counter stays."""
    return [nft.rules_delete(table, _PORT)]


def ask() -> bytes:
    """The request for the counters of all rules of a namespace."""
    return nft.dump(nft.GET_OBJECT)


def counts(client: KeeperClient, namespace: int) -> Mapping[str, int]:
    """Table → packets that its rule has acted on so far; other packets that it drops beside them too."""
    answers, _ = client.dump([namespace], ask())
    found: Counter[str] = Counter()
    for kind, body in messages(answers[0]):
        told = attributes(body[4:]) if kind == nft.NEW_OBJECT else {}
        if told and _string(told[1]).startswith(PREFIX):
            found[_string(told[1])] += int(struct.unpack(">Q", attributes(memoryview(told[4]))[2])[0])
    return found


def label(rule: Rule) -> str:
    """What the counts of rules that are over are added to: a port, a way, and what was done there."""
    return f"{rule.port} {'out' if rule.outgoing else 'in'} {rule.counts}"


def read_label(text: str) -> tuple[Port, bool, str]:
    """Port, whether leaving, and what was done."""
    port, way, what = text.split()
    node, _, name = port.partition(":")
    return Port(node, name), way == "out", what


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _chosen(which: Selection) -> bytes:
    if isinstance(which, AtRandom):
        return b"" if which.share >= 1 else nft.share(round(which.share * _PARTS), _PARTS)
    assert isinstance(which, Every)
    return b"" if which.n == 1 else nft.one_in(which.n, which.offset)


def _before(rule: Rule) -> bytes:
    """What else must hold of a packet for it to be numbered."""
    if isinstance(rule.effect, MarkEcn):
        return nft.header(0, 2) + nft.masked(_ECN, bytes(2)) + nft.unequal(bytes(2)) + nft.unequal(_ECN)
    return nft.unmarked() if isinstance(rule.effect, Duplicate) else b""


def _effect(rule: Rule, ifindex: int) -> bytes:
    effect = rule.effect
    if isinstance(effect, Drop):
        return nft.drop()
    if isinstance(effect, Duplicate):
        return nft.mark(_COPY) + nft.copy_to(ifindex) + nft.mark(0)
    if isinstance(effect, MarkEcn):
        return nft.header(0, 2) + nft.masked(_NOT_ECN, _ECN) + nft.write_header(0, 2)
    assert isinstance(effect, Corrupt)
    place, size = _HEADER_BYTES + effect.offset, len(effect.mask)
    return nft.header(place, size) + nft.masked(b"\xff" * size, effect.mask) + nft.write_header(place, size)


def packets_of(rule: Rule, addresses: AddressPlan, topology: Topology) -> list[bytes]:
    """Which packets a rule is about: alternatives, no two of which hold of one packet.

    Raises LabError for names the lab does not have, UsageError for packets that never come by the port.
    """
    block = nft.header(_DESTINATION, _BLOCK_BYTES) + nft.equal(addresses.block.network_address.packed[:_BLOCK_BYTES])
    return [block + alternative for alternative in _alternatives(rule, addresses, topology)]


def _alternatives(rule: Rule, addresses: AddressPlan, topology: Topology) -> list[bytes]:
    if rule.only.ev is not None:
        return _of_ev(rule, *rule.only.ev, addresses)
    if rule.only.usid is None:
        return [b""]
    name = rule.only.usid
    usids = struct.pack(">H", addresses.usid(name))
    alternatives = []
    if ":" in name:
        # A port's uSID means a port of whichever T0 it follows.
        node, _, plane = name.partition(":")
        t0 = topology.peer(Port(node, plane))
        usids = struct.pack(">H", addresses.usid(t0.node)) + usids
        if rule.port == (t0 if rule.outgoing else Port(node, plane)):
            alternatives.append(_at(0, usids[_USID_BYTES:]))
    places = _MOST_USIDS - len(usids) // _USID_BYTES + 1
    return alternatives + [_at(place, usids) for place in range(places)]


def _at(place: int, usids: bytes) -> bytes:
    return nft.header(_DESTINATION + _BLOCK_BYTES + place * _USID_BYTES, len(usids)) + nft.equal(usids)


def _of_ev(rule: Rule, src: str, dst: str, ev: int, addresses: AddressPlan) -> list[bytes]:
    """Packets of an EV, by what is left of their uSIDs at a port; beyond the first T0 by their source as well.

    There packets of several hosts have the same uSIDs left. A host sends from a port's address or its NIC's.
    """
    path = addresses.path(src, dst, ev)
    for place, (link, destination) in enumerate(addresses.hops(src, dst, ev)):
        sender = path.nodes[place]
        near, far = (link.a, link.b) if link.a.node == sender else (link.b, link.a)
        if rule.port == (near if rule.outgoing else far):
            # What follows the port's uSID is the host's business: ordinary IPv6 has one more.
            left = destination.packed[: _BLOCK_BYTES + _USID_BYTES * len(path.usids[place:])]
            follow = nft.header(_DESTINATION, len(left)) + nft.equal(left)
            if place == 0:
                return [follow]
            sources = (addresses.port_address(src, path.plane), addresses.nic_address(src))
            return [follow + nft.header(_SOURCE, _ADDRESS_BYTES) + nft.equal(source.packed) for source in sources]
    way = "leave" if rule.outgoing else "enter"
    raise UsageError(
        f"packets of EV {ev:#06x} from {src} to {dst} do not {way} by {rule.port}",
        found=" ".join(path.nodes),
        expected="a port on the way of the EV, in the direction of the packets",
    )
