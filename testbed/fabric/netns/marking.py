"""ECN: a virtual queue beside each port that leads to another switch, and marks on what does not fit into it.

The kernel's queueing disciplines that mark are not everywhere; nf_tables with its egress hook is, and a user namespace
may use it. It sees a packet before the port's own queue does, and not how full that is, so that it keeps an account of
its own, in a bucket of tokens: the bucket's room is the threshold, what comes in is a little more than the link's rate.
A packet takes tokens for its bytes. One that finds too few takes what there is, and is marked if it is ECN-capable
(RFC 3168 §5). So nothing is marked while less arrives than drains, and once the threshold is reached all of it while
much more does; in between, within a token a packet, a share.

nf_tables can count bytes by itself, but gives such a bucket a second's worth of room beside the one asked for: far more
than a queue holds. So bytes are counted in tokens that stand for a power of two of them: one for each whole one in the
frame, and of the rest each binary digit now and then, every second, fourth, … packet that has it. Over several packets
the sum is that of their bytes, to half a percent. A packet shorter than a token takes one now and then, and is marked
only then. A frame counts as twice the MTU at most; only segmentation offload (of TCP) makes longer ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from testbed.fabric.netns import nftables as nft
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.netlink import attributes, messages
from testbed.fabric.netns.state import Marker

#: The virtual queue drains at this share of the link's rate. Above 1, so that a link which is merely full is not
#: marked: one plane's load on the only uplink that is left just fills it, builds no queue, and has nowhere else to go.
#: A queue that stands under such a load is the business of the senders' delay.
DRAIN = 1.01

#: What a namespace is asked for; a kernel without nf_tables answers with nothing.
QUERY = b"".join(
    (
        nft.dump(nft.GET_TABLE, family=0),
        nft.dump(nft.GET_CHAIN),
        nft.dump(nft.GET_RULE),
        nft.dump(nft.GET_OBJECT),
    )
)

_PREFIX, _OUT, _MARK, _QUEUE, _MARKED = "ecn_", "out", "mark", "queue", "marked"
#: A packet of the MTU takes half as many tokens at least.
_WHOLE_TOKENS = 8
_DIGITS = 6
_SECONDS_PER_HOUR = 3600
_IPV6 = 0x86DD
#: Names of table and chain, and the expressions: what there is to a rule that comes back some twenty times a port.
_OF_A_RULE = frozenset({1, 2, 4})
#: The ECN field among the first 16 bits of an IPv6 header: version, traffic class, flow label.
_ECN = b"\x00\x30"
_NOT_ECN = b"\xff\xcf"


def marker(ifindex: int, rate: int, threshold: int, frame: int) -> Marker:
    """The marker of a port.

    Args:
        ifindex: of the port.
        rate: of the link, bytes/s.
        threshold: bytes beyond which the virtual queue marks.
        frame: bytes of the longest frame.
    """
    unit = (1 << frame.bit_length()) // _WHOLE_TOKENS
    return Marker(ifindex, round(rate * DRAIN * _SECONDS_PER_HOUR / unit), -(-threshold // unit), unit)


def install(marker: Marker, device: str) -> list[bytes]:
    """Requests, to be carried out together, that make a marker. The kernel must not have it yet."""
    table = _table(device)
    out, mark = _rules(marker.unit)
    return [
        nft.table(table),
        nft.limit_over(table, _QUEUE, marker.per_hour, marker.burst),
        nft.counter(table, _MARKED),
        nft.chain(table, _MARK),
        *(nft.rule(table, _MARK, rule) for rule in mark),
        nft.egress_chain(table, _OUT, device),
        *(nft.rule(table, _OUT, rule) for rule in out),
    ]


def read(found: Iterable[tuple[int, memoryview]], indexes: Mapping[str, int]) -> tuple[set[Marker], set[str]]:
    """Markers in the answers to :data:`QUERY`, and ``family name`` of every table that is not exactly one.

    Args:
        found: (type, body) of each.
        indexes: interface → ifindex.
    """
    tables: dict[tuple[int, bytes], _Table] = {}
    for kind, body in found:
        told = attributes(body[4:], _OF_A_RULE if kind == nft.NEW_RULE else None)
        if kind == nft.NEW_TABLE:
            tables[body[0], told[1]] = _Table()
        # Changed between two answers: the next reading will tell.
        elif (table := tables.get((body[0], told[1]))) is not None:
            table.add(kind, told)
    markers, others = set(), set()
    for (family, name), table in tables.items():
        made = table.marker(indexes) if family == nft.NETDEV else None
        text = name.rstrip(b"\0").decode(errors="replace")
        if made is None or text != _table(table.device):
            others.add(f"{_FAMILIES.get(family, family)} {text}")
        else:
            markers.add(made)
    return markers, others


def marked(client: KeeperClient, namespace: int, devices: Sequence[str]) -> dict[str, int]:
    """Device → packets marked, of those that mark."""
    answers, _ = client.dump([namespace], nft.dump(nft.GET_OBJECT))
    counts = {}
    for kind, body in messages(answers[0]):
        if kind != nft.NEW_OBJECT:
            continue
        told = attributes(body[4:])
        if _string(told[2]) == _MARKED and struct.unpack(">I", told[3])[0] == nft.COUNTER:
            counts[_string(told[1])] = struct.unpack(">Q", attributes(memoryview(told[4]))[2])[0]
    return {device: counts[_table(device)] for device in devices if _table(device) in counts}


_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


class _Table:
    """What was found in one table."""

    def __init__(self) -> None:
        self._chains: dict[str, bytes] = {}
        self._rules: dict[str, list[nft.Reading]] = {_OUT: [], _MARK: []}
        self._objects: dict[str, tuple[int, bytes]] = {}

    def add(self, kind: int, told: dict[int, bytes]) -> None:
        if kind == nft.NEW_CHAIN:
            self._chains[_string(told[3])] = told.get(4, b"")
        elif kind == nft.NEW_RULE:
            self._rules.setdefault(_string(told[2]), []).append(nft.read_expressions(told.get(4, b"")))
        elif kind == nft.NEW_OBJECT:
            self._objects[_string(told[2])] = struct.unpack(">I", told[3])[0], told[4]

    @property
    def device(self) -> str:
        """The interface it hangs on; empty for none."""
        return _string(attributes(memoryview(self._chains.get(_OUT, b""))).get(3, b""))

    def marker(self, indexes: Mapping[str, int]) -> Marker | None:
        """The marker that the table is; None for anything else."""
        kinds = {name: kind for name, (kind, _) in self._objects.items()}
        if kinds != {_QUEUE: nft.LIMIT, _MARKED: nft.COUNTER} or self._chains.keys() != {_OUT, _MARK}:
            return None
        hook = attributes(memoryview(self._chains[_OUT]))
        if self.device not in indexes or (hook.get(1), hook.get(2)) != nft.AT_EGRESS or self._chains[_MARK]:
            return None
        unit = _units().get((tuple(self._rules[_OUT]), tuple(self._rules[_MARK])))
        limit = nft.read_limit_over(self._objects[_QUEUE][1])
        if unit is None or limit is None:
            return None
        return Marker(indexes[self.device], *limit, unit)


def _table(device: str) -> str:
    return _PREFIX + device.replace("-", "_")


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


@cache
def _rules(unit: int) -> tuple[list[bytes], list[bytes]]:
    """Expressions of each rule: of the chain that counts, and of the one that marks."""
    token = nft.use(nft.LIMIT, _QUEUE) + nft.go_to(_MARK)
    out = [nft.length_at_least(number * unit) + token for number in range(1, _WHOLE_TOKENS + 1)]
    out += [nft.length_has(unit >> digit) + nft.one_in(1 << digit) + token for digit in range(1, _DIGITS + 1)]
    capable = nft.header(0, 2) + nft.masked(_ECN, bytes(2)) + nft.unequal(bytes(2)) + nft.unequal(_ECN)
    marks = nft.header(0, 2) + nft.masked(_NOT_ECN, _ECN) + nft.write_header(0, 2) + nft.use(nft.COUNTER, _MARKED)
    return out, [nft.protocol(_IPV6) + capable + marks]


@cache
def _units() -> dict[tuple[tuple[nft.Reading, ...], tuple[nft.Reading, ...]], int]:
    """Rules of both chains as they are read → the unit they count in, for every unit that a link may have."""
    known = {}
    for unit in (1 << power for power in range(8, 15)):
        out, mark = _rules(unit)
        known[tuple(map(nft.read_expressions, out)), tuple(map(nft.read_expressions, mark))] = unit
    return known
