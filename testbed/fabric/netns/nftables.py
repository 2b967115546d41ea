"""nf_tables requests and answers (linux/netfilter/nf_tables.h), as far as a fabric needs them.

Encoded by hand: pyroute2 0.9 has no egress hooks, no stateful objects, and no way to read rules back as written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import cache

from testbed.fabric.netns.netlink import HEAD, attribute, attributes

#: Number of the netfilter subsystem whose messages these are: the upper byte of their types.
SUBSYSTEM = 10
NETDEV = 5  #: the address family whose chains hang on one interface
IPV6 = 10  #: that of all IPv6 packets of a namespace

NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN, GET_CHAIN, NEW_RULE, GET_RULE, DELETE_RULE = (
    SUBSYSTEM << 8 | kind for kind in (0, 1, 2, 3, 4, 6, 7, 8)
)
NEW_SET, NEW_ELEMENTS, NEW_OBJECT, GET_OBJECT = (SUBSYSTEM << 8 | kind for kind in (9, 12, 18, 19))
COUNTER, LIMIT = 1, 4  #: kinds of objects

_REQUEST, _DUMP, _EXCLUSIVE, _CREATE, _APPEND = 0x1, 0x300, 0x200, 0x400, 0x800
_INGRESS, _EGRESS = 0, 1
_LOCAL_OUT = 3
_BEFORE_ROUTING_AGAIN = -150
_PRIORITY = 0
_REGISTER_VERDICT, _REGISTER = 0, 1
_GOTO = -4 & 0xFFFF_FFFF
_DROP = 0
_META_LENGTH, _META_PROTOCOL, _META_MARK = 0, 1, 3
_CONSTANT = 2
_NETWORKHEADER = 1
_TO_BIG_ENDIAN = 1
_INVERTED = 1
_SECONDS_PER_HOUR = 3600

_BE32 = struct.Struct(">I").pack
_BE64 = struct.Struct(">Q").pack

#: Where an egress chain hangs, as the kernel tells it: hook and priority.
AT_EGRESS = (_BE32(_EGRESS), _BE32(_PRIORITY))


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _message(kind: int, flags: int, body: bytes, family: int = NETDEV) -> bytes:
    data = bytes((family, 0, 0, 0)) + body
    return HEAD.pack(HEAD.size + len(data), kind, _REQUEST | flags, 0, 0) + data


def dump(kind: int, family: int = NETDEV) -> bytes:
    """Ask for everything of one kind; family 0: of every family."""
    return _message(kind, _DUMP, b"", family)


def table(name: str, *, exclusive: bool = False, family: int = NETDEV) -> bytes:
    """Make a table, if there is none of this name; ``exclusive``: refused (EEXIST) where there is one."""
    return _message(NEW_TABLE, _CREATE | (_EXCLUSIVE if exclusive else 0), attribute(1, _text(name)), family)


def table_delete(name: str, family: int = NETDEV) -> bytes:
    """Remove a table with all it holds."""
    return _message(DELETE_TABLE, 0, attribute(1, _text(name)), family)


def chain(table: str, name: str) -> bytes:
    """Make a chain that others go to."""
    return _message(NEW_CHAIN, _CREATE, attribute(1, _text(table)) + attribute(3, _text(name)))


def egress_chain(table: str, name: str, device: str, priority: int = _PRIORITY) -> bytes:
    """Make a chain that every packet passes before it enters the queue of an interface."""
    return _base_chain(table, name, device, AT_EGRESS[0], priority)


def ingress_chain(table: str, name: str, device: str, priority: int = _PRIORITY) -> bytes:
    """Make a chain that every packet passes that an interface has received, before anything else sees it."""
    return _base_chain(table, name, device, _BE32(_INGRESS), priority)


def rerouting_chain(table: str, name: str) -> bytes:
    """Make a chain that every IPv6 packet passes that this namespace sends, looked up anew where its mark changes."""
    place = attribute(1, _BE32(_LOCAL_OUT)) + attribute(2, struct.pack(">i", _BEFORE_ROUTING_AGAIN))
    body = attribute(1, _text(table)) + attribute(3, _text(name)) + attribute(4, place) + attribute(7, _text("route"))
    return _message(NEW_CHAIN, _CREATE, body, IPV6)


def _base_chain(table: str, name: str, device: str, hook: bytes, priority: int) -> bytes:
    place = attribute(1, hook) + attribute(2, struct.pack(">i", priority)) + attribute(3, _text(device))
    body = attribute(1, _text(table)) + attribute(3, _text(name)) + attribute(4, place) + attribute(7, _text("filter"))
    return _message(NEW_CHAIN, _CREATE, body)


def rules_delete(table: str, chain: str) -> bytes:
    """Remove all rules of a chain: no packet meets them any more."""
    return _message(DELETE_RULE, 0, attribute(1, _text(table)) + attribute(2, _text(chain)))


def number_set(table: str, name: str, numbers: Sequence[int]) -> list[bytes]:
    """Make a set of 32-bit numbers as a register holds them."""
    head = attribute(1, _text(table)) + attribute(2, _text(name)) + attribute(3, _BE32(_CONSTANT))
    made = _message(NEW_SET, _CREATE, head + attribute(5, _BE32(4)) + attribute(10, _BE32(1)))
    each = b"".join(attribute(1, attribute(1, attribute(1, struct.pack("=I", number)))) for number in numbers)
    elements = attribute(1, _text(table)) + attribute(2, _text(name)) + attribute(3, each)
    return [made, _message(NEW_ELEMENTS, _CREATE, elements)]


def counter(table: str, name: str) -> bytes:
    """Make a counter."""
    data = attribute(1, _BE64(0)) + attribute(2, _BE64(0))
    return _object(table, name, COUNTER, data)


def limit_over(table: str, name: str, per_hour: int, burst: int) -> bytes:
    """Make a bucket of ``burst`` tokens; whoever takes one that is not there goes on, the others leave their rule."""
    rate = attribute(1, _BE64(per_hour)) + attribute(2, _BE64(_SECONDS_PER_HOUR)) + attribute(3, _BE32(burst))
    return _object(table, name, LIMIT, rate + attribute(4, _BE32(0)) + attribute(5, _BE32(_INVERTED)))


def _object(table: str, name: str, kind: int, data: bytes) -> bytes:
    body = attribute(1, _text(table)) + attribute(2, _text(name)) + attribute(3, _BE32(kind)) + attribute(4, data)
    return _message(NEW_OBJECT, _CREATE, body)


def rule(table: str, chain: str, expressions: bytes, family: int = NETDEV) -> bytes:
    """Append a rule to a chain."""
    names = attribute(1, _text(table)) + attribute(2, _text(chain))
    return _message(NEW_RULE, _CREATE | _APPEND, names + attribute(4, expressions), family)


# -- expressions: parts of a rule, each of which goes on to the next or leaves the rule -------------------------------


def _expression(name: str, *values: tuple[int, bytes]) -> bytes:
    data = b"".join(attribute(kind, value) for kind, value in values)
    return attribute(1, attribute(1, _text(name)) + attribute(2, data))


def _numbers(name: str, *values: tuple[int, int]) -> bytes:
    return _expression(name, *((kind, _BE32(value)) for kind, value in values))


def _compare(operation: int, value: bytes) -> bytes:
    return _expression("cmp", (1, _BE32(_REGISTER)), (2, _BE32(operation)), (3, attribute(1, value)))


def equal(value: bytes) -> bytes:
    """Goes on where what was loaded is this."""
    return _compare(0, value)


def unequal(value: bytes) -> bytes:
    """Goes on where what was loaded is something else."""
    return _compare(1, value)


def masked(mask: bytes, xor: bytes) -> bytes:
    """What was loaded, and ``mask``, exclusive or ``xor``."""
    registers = ((1, _BE32(_REGISTER)), (2, _BE32(_REGISTER)), (3, _BE32(len(mask))))
    return _expression("bitwise", *registers, (4, attribute(1, mask)), (5, attribute(1, xor)))


def protocol(ethertype: int) -> bytes:
    """Goes on with packets of this protocol."""
    return _numbers("meta", (1, _REGISTER), (2, _META_PROTOCOL)) + equal(struct.pack(">H", ethertype))


_LENGTH = _numbers("meta", (1, _REGISTER), (2, _META_LENGTH))


def length_at_least(octets: int) -> bytes:
    """Goes on with frames of so many bytes or more."""
    order = ((1, _REGISTER), (2, _REGISTER), (3, _TO_BIG_ENDIAN), (4, 4), (5, 4))
    return _LENGTH + _numbers("byteorder", *order) + _compare(5, _BE32(octets))


def length_has(bit: int) -> bytes:
    """Goes on with frames whose length has this bit set."""
    return _LENGTH + masked(struct.pack("=I", bit), bytes(4)) + unequal(bytes(4))


def number_of_packet(modulus: int) -> bytes:
    """Load how many packets came here before, modulo this."""
    return _numbers("numgen", (1, _REGISTER), (2, modulus), (3, 0), (4, 0))


def one_in(count: int, offset: int = 0) -> bytes:
    """Goes on with every ``count``-th packet that comes here, the first after ``offset`` others."""
    return number_of_packet(count) + equal(struct.pack("=I", offset))


def share(parts: int, of: int) -> bytes:
    """Goes on with so many of so many packets, each chosen at random."""
    numgen = _numbers("numgen", (1, _REGISTER), (2, of), (3, 1), (4, 0))
    order = ((1, _REGISTER), (2, _REGISTER), (3, _TO_BIG_ENDIAN), (4, 4), (5, 4))
    return numgen + _numbers("byteorder", *order) + _compare(2, _BE32(parts))


def is_in(name: str) -> bytes:
    """Goes on where what was loaded is in a set."""
    return _expression("lookup", (1, _text(name)), (2, _BE32(_REGISTER)))


def unmarked() -> bytes:
    """Goes on with packets that bear no mark within this kernel."""
    return _numbers("meta", (1, _REGISTER), (2, _META_MARK)) + equal(bytes(4))


def mark(value: int) -> bytes:
    """Set a packet's mark, which it loses when it leaves its namespace."""
    return _load(struct.pack("=I", value)) + _numbers("meta", (3, _REGISTER), (2, _META_MARK))


def mark_at_random(first: int, count: int) -> bytes:
    """Set the mark of each packet to one of ``count`` numbers from ``first`` on, at random."""
    numgen = _numbers("numgen", (1, _REGISTER), (2, count), (3, 1), (4, first))
    return numgen + _numbers("meta", (3, _REGISTER), (2, _META_MARK))


def copy_to(ifindex: int) -> bytes:
    """Send a copy of the packet out by an interface."""
    return _load(struct.pack("=I", ifindex)) + _numbers("dup", (2, _REGISTER))


def _load(value: bytes) -> bytes:
    return _expression("immediate", (1, _BE32(_REGISTER)), (2, attribute(1, value)))


def header(offset: int, size: int) -> bytes:
    """Load bytes of the network header."""
    return _numbers("payload", (1, _REGISTER), (2, _NETWORKHEADER), (3, offset), (4, size))


def write_header(offset: int, size: int) -> bytes:
    """Write what was loaded into the network header; IPv6 has no checksum there."""
    place = ((5, _REGISTER), (2, _NETWORKHEADER), (3, offset), (4, size))
    return _numbers("payload", *place, (6, 0), (7, 0), (8, 0))


def use(kind: int, name: str) -> bytes:
    """Pass through a counter or a bucket."""
    return _expression("objref", (1, _BE32(kind)), (2, _text(name)))


def go_to(chain: str) -> bytes:
    """Leave for another chain, for good."""
    verdict = attribute(1, _BE32(_GOTO)) + attribute(2, _text(chain))
    return _expression("immediate", (1, _BE32(_REGISTER_VERDICT)), (2, attribute(2, verdict)))


def drop() -> bytes:
    """The packet goes no further."""
    return _expression("immediate", (1, _BE32(_REGISTER_VERDICT)), (2, attribute(2, attribute(1, _BE32(_DROP)))))


# -- reading ----------------------------------------------------------------------------------------------------------

#: Of each expression the attributes that say what it does; newer kernels tell more of them than older ones.
_TELLING = {
    "cmp": {1, 2, 3},
    "bitwise": {1, 2, 3, 4, 5},
    "meta": {1, 2},
    "byteorder": {1, 2, 3, 4, 5},
    "numgen": {1, 2, 3, 4},
    "objref": {1, 2},
    "immediate": {1, 2},
    "payload": {1, 2, 3, 4, 5, 6},
}

Reading = tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...]


@cache
def read_expressions(data: bytes) -> Reading:
    """A rule's expressions, in a form that is the same for what was asked for and what the kernel tells of it."""
    return tuple(_read_each(data))


def _read_each(data: bytes) -> Iterator[tuple[str, tuple[tuple[int, bytes], ...]]]:
    offset = 0
    while offset + 4 <= len(data):
        (length,) = struct.unpack_from("=H", data, offset)
        if length < 4:
            return
        found = attributes(memoryview(data)[offset + 4 : offset + length])
        name = found[1].rstrip(b"\0").decode()
        told = attributes(memoryview(found.get(2, b"")), _TELLING.get(name))
        yield name, tuple(sorted(told.items()))
        offset += (length + 3) & ~3


def read_limit_over(data: bytes) -> tuple[int, int] | None:
    """(tokens an hour, burst) of a bucket as :func:`limit_over` makes it; None for any other."""
    told = attributes(memoryview(data))
    if (told.get(4), told.get(5)) != (_BE32(0), _BE32(_INVERTED)):
        return None
    if told.get(2) != _BE64(_SECONDS_PER_HOUR):
        return None
    return int.from_bytes(told[1], "big"), int.from_bytes(told[3], "big")
