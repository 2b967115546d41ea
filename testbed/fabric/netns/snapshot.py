"""A node's state as the kernel has it, read back by netlink dumps.

Decoded by hand: pyroute2 takes some 0.3 ms a message, and a fabric has thousands, several times a run.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from testbed.fabric.netns import marking, nftables
from testbed.fabric.netns.client import KeeperClient
from testbed.fabric.netns.netlink import HEAD, Attributes, attributes, messages
from testbed.fabric.netns.state import GATEWAY, Action, Address, Device, MarkRule, Neighbour, NodeState, Route, Shaper

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_RTMSG = struct.Struct("=BBBBBBBBI")
_TCMSG = struct.Struct("=BxxxiIII")
_U32 = struct.Struct("=I")
_NEXTHOP = struct.Struct("=HBxi")
_RULE_HEADER_BYTES = 12

_NEWLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH, _NEWRULE, _NEWQDISC = 16, 20, 24, 28, 32, 36
_REQUEST_DUMP = 0x1 | 0x300
_AF_INET6 = 10
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_RTNH_F_LINKDOWN, _RTNH_F_DEAD = 16, 1
_NUD_PERMANENT = 0x80
_TABLE_MAIN = 254
_RTPROT_KERNEL = 2
_SKIP_STATS = 1 << 3
_LOOPBACK_ADDRESS = bytes(15) + b"\1"
_DEFAULT_QDISCS = frozenset({"noqueue", "pfifo_fast", "noop", "fq_codel", "pfifo", "mq"})

# IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, early among some fifty.
_OF_A_DEVICE = frozenset({1, 3, 4})


def _request(kind: int, body: bytes) -> bytes:
    return HEAD.pack(HEAD.size + len(body), kind, _REQUEST_DUMP, 0, 0) + body


_LINKS = _request(18, _IFINFO.pack(0, 0, 0, 0, 0) + struct.pack("=HHI", 8, 29, _SKIP_STATS))
_ADDRESSES = _request(22, _IFADDR.pack(_AF_INET6, 0, 0, 0, 0))
_NEIGHBOURS = _request(30, _NDMSG.pack(_AF_INET6, 0, 0, 0, 0))
ROUTES = _request(26, _RTMSG.pack(_AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0) + struct.pack("=HHI", 8, 15, _TABLE_MAIN))
QDISCS = _request(38, _TCMSG.pack(0, 0, 0, 0, 0))
_RULES = _request(34, struct.pack("=B11x", _AF_INET6))
_ALL = _LINKS + _ADDRESSES + _NEIGHBOURS + ROUTES + QDISCS + _RULES + marking.QUERY


def take(client: KeeperClient, namespaces: Sequence[int]) -> tuple[list[NodeState], int]:
    """The state of each namespace, and CLOCK_REALTIME (ns) by which all of it had been read."""
    answers, t_ns = client.dump(namespaces, _ALL)
    return [_decode(answer) for answer in answers], t_ns


def take_all(client: KeeperClient, parts: Iterable[Sequence[int]]) -> Iterator[NodeState]:
    """The state of each namespace of several groups, a group being read while the one before it is decoded."""
    for answers, _ in client.dumps(parts, _ALL):
        yield from map(_decode, answers)


def take_routes(client: KeeperClient, namespace: int) -> set[Route]:
    """The routes of one namespace."""
    answers, _ = client.dump([namespace], ROUTES)
    return _decode(answers[0]).routes


def _decode(data: bytes) -> NodeState:
    state = NodeState()
    filters: list[tuple[int, memoryview]] = []
    for kind, body in messages(data):
        if kind >> 8 == nftables.SUBSYSTEM:
            filters.append((kind, body))
        elif kind == _NEWLINK:
            state.devices.add(_device(body))
        elif kind == _NEWADDR:
            _add_address(state, body)
        elif kind == _NEWNEIGH:
            _add_neighbour(state, body)
        elif kind == _NEWROUTE:
            # The kernel's own routes (that of ::1) come and go with interfaces and addresses, compared above.
            if body[5] != _RTPROT_KERNEL:
                state.routes.update(_routes(body))
        elif kind == _NEWRULE:
            _add_rule(state, body)
        elif kind == _NEWQDISC:
            _add_shaper(state, body)
    if filters:
        indexes = {device.name: device.ifindex for device in state.devices}
        state.markers, state.filters = marking.read(filters, indexes)
    return state


def _device(body: memoryview) -> Device:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes(body[_IFINFO.size :], _OF_A_DEVICE)
    name = found[3].rstrip(b"\0").decode()
    mac = b"" if name == "lo" else found.get(1, b"")
    return Device(index, name, _U32.unpack(found[4])[0], mac, bool(flags & _IFF_UP), bool(flags & _IFF_RUNNING))


def _add_address(state: NodeState, body: memoryview) -> None:
    index = _IFADDR.unpack_from(body)[4]
    address = attributes(body[_IFADDR.size :])[1]
    if address != _LOOPBACK_ADDRESS:
        state.addresses.add(Address(index, address))


def _add_neighbour(state: NodeState, body: memoryview) -> None:
    _, index, nud, _, _ = _NDMSG.unpack_from(body)
    if nud & _NUD_PERMANENT:
        found = attributes(body[_NDMSG.size :])
        state.neighbours.add(Neighbour(index, found[1], found.get(2, b"")))


def _add_shaper(state: NodeState, body: memoryview) -> None:
    _, index, _, _, _ = _TCMSG.unpack_from(body)
    found = attributes(body[_TCMSG.size :])
    kind = found[1].rstrip(b"\0").decode()
    if kind in _DEFAULT_QDISCS:
        return
    rate = limit = 0
    if kind == "tbf":
        # struct tc_tbf_qopt: two tc_ratespec (the rate is the last u32 of each), limit, buffer, mtu.
        parameters = attributes(memoryview(found[2]))[1]
        rate, limit = struct.unpack_from("=8xI12xI", parameters)
    state.shapers.add(Shaper(index, kind, rate, limit))


def _add_rule(state: NodeState, body: memoryview) -> None:
    found = attributes(body[_RULE_HEADER_BYTES:])
    # FRA_PROTOCOL: the kernel's own rules lead to the local and the main table.
    if found.get(21) != bytes([_RTPROT_KERNEL]):
        priority, mark, table = (_U32.unpack(found.get(kind, bytes(4)))[0] for kind in (6, 10, 15))
        state.rules.add(MarkRule(priority, mark, table))


def _routes(body: memoryview) -> Iterator[Route]:
    """The route of a message, for each of its next hops."""
    _, length, _, _, _, _, _, _, flags = _RTMSG.unpack_from(body)
    found = attributes(body[_RTMSG.size :])
    if 9 not in found:
        yield _route(length, found, flags, _U32.unpack(found[4])[0] if 4 in found else 0)
        return
    hops, offset = memoryview(found[9]), 0
    while offset + _NEXTHOP.size <= len(hops):
        size, hop_flags, index = _NEXTHOP.unpack_from(hops, offset)
        if size < _NEXTHOP.size:
            return
        yield _route(length, found | attributes(hops[offset + _NEXTHOP.size : offset + size]), hop_flags, index)
        offset += (size + 3) & ~3


def _route(length: int, found: Attributes, flags: int, index: int) -> Route:
    action, segment = _action(found)
    usable = not flags & (_RTNH_F_LINKDOWN | _RTNH_F_DEAD)
    return Route(found.get(1, bytes(16)), length, action, index, segment, found.get(7, b""), usable)


def _action(found: Attributes) -> tuple[Action, bytes]:
    if 22 not in found:
        return (Action.FORWARD if found.get(5) == GATEWAY else Action.OTHER), b""
    encapsulation = attributes(memoryview(found[22]))
    kind = struct.unpack("=H", found[21])[0]
    if kind == 5:
        return Action.ENCAPSULATE, encapsulation[1][-16:]
    if kind != 7:
        return Action.OTHER, b""
    action = _U32.unpack(encapsulation[1])[0]
    if action == 7:
        return Action.DECAPSULATE, b""
    if action != 1:
        return Action.OTHER, b""
    flavours = attributes(memoryview(encapsulation.get(11, b"")))
    if not flavours:
        return Action.DROP, b""
    expected = {1: _U32.pack(1 << 4), 2: b"\x20", 3: b"\x10"}
    return (Action.UN if flavours == expected else Action.OTHER), b""


def segment_counters(client: KeeperClient, namespace: int) -> dict[tuple[bytes, int], tuple[int, int, int]]:
    """(prefix, length) → (packets, bytes, errors) of every seg6local route of a namespace that counts."""
    answers, _ = client.dump([namespace], ROUTES)
    told = (segment_counter(body) for kind, body in messages(answers[0]) if kind == _NEWROUTE)
    return {(prefix, length): counts for prefix, length, counts in filter(None, told)}


def segment_counter(body: memoryview) -> tuple[bytes, int, tuple[int, int, int]] | None:
    """Prefix, length and (packets, bytes, errors) of a route; None where it is no seg6local route that counts."""
    found = attributes(body[_RTMSG.size :])
    encapsulation = attributes(memoryview(found.get(22, b""))) if found.get(21) == b"\x07\x00" else {}
    if 10 not in encapsulation:
        return None
    values = attributes(memoryview(encapsulation[10]))
    packets, size, errors = (struct.unpack("=Q", values[number])[0] for number in (2, 3, 4))
    return found.get(1, bytes(16)), body[1], (packets, size, errors)


_STATS64 = struct.Struct("=24Q")
LINKS_WITH_STATS = _request(18, _IFINFO.pack(0, 0, 0, 0, 0))


def port_counters(client: KeeperClient, namespace: int) -> dict[str, dict[str, int]]:
    """Interface → its 64-bit counters, named as in rtnl_link_stats64."""
    names = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped")
    answers, _ = client.dump([namespace], LINKS_WITH_STATS)
    counters = {}
    for kind, body in messages(answers[0]):
        if kind == _NEWLINK:
            found = attributes(body[_IFINFO.size :])
            values = _STATS64.unpack_from(found[23])
            counters[found[3].rstrip(b"\0").decode()] = dict(zip(names, values, strict=False))
    return counters
