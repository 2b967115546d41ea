"""Routes over several paths and what chooses among them, as netlink requests.

Encoded by hand, as pyroute2 0.9 knows neither next hops with SRv6 encapsulation of their own nor nf_tables' chains that
route packets anew.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from testbed.fabric.netns import nftables as nft
from testbed.fabric.netns.netlink import HEAD, attribute
from testbed.fabric.netns.seg6 import srh
from testbed.fabric.netns.state import GATEWAY, Address, MarkRule, Route

_DELETE_ADDRESS, _NEW_ROUTE, _DELETE_ROUTE, _NEW_RULE, _DELETE_RULE = 21, 24, 25, 32, 33
_REQUEST, _REPLACE, _EXCLUSIVE, _CREATE = 0x1, 0x100, 0x200, 0x400
_AF_INET6, _PROTO_STATIC, _UNICAST, _MAIN, _UNSPECIFIED = 10, 4, 1, 254, 0
_RTMSG = struct.Struct("=BBBBBBBBI")
_RULE = struct.Struct("=BBBBBBBBI")
_NEXTHOP = struct.Struct("=HBBi")
_DST, _OIF, _GATEWAY, _PREFSRC, _MULTIPATH, _TABLE, _ENCAP_TYPE, _ENCAP = 1, 4, 5, 7, 9, 15, 21, 22
_PRIORITY, _FWMARK, _FWMASK, _PROTOCOL = 6, 10, 16, 21
_TO_TABLE = 1
_SEG6 = struct.pack("=H", 5)
_U32 = struct.Struct("=I").pack
_CHAIN = "out"
_DESTINATION, _ADDRESS_BYTES = 24, 16


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return HEAD.pack(HEAD.size + len(body), kind, _REQUEST | flags, 0, 0) + body


def _route_head(route: Route, table: int) -> bytes:
    head = _RTMSG.pack(_AF_INET6, route.length, 0, 0, _UNSPECIFIED, _PROTO_STATIC, 0, _UNICAST, 0)
    return head + attribute(_TABLE, _U32(table)) + attribute(_DST, route.prefix)


def _hop(route: Route) -> bytes:
    """Where a next hop leads: the gateway is what makes it one of several, packets follow the encapsulation."""
    encapsulation = attribute(_ENCAP_TYPE, _SEG6) + attribute(_ENCAP, attribute(1, srh(route.segment)))
    return attribute(_GATEWAY, GATEWAY) + encapsulation


def multipath(routes: Sequence[Route]) -> bytes:
    """Install encapsulation routes to one prefix as next hops of one route, chosen per flow; replaces what is there."""
    hops = b""
    for route in routes:
        data = _hop(route)
        hops += _NEXTHOP.pack(_NEXTHOP.size + len(data), 0, 0, route.ifindex) + data
    first = routes[0]
    body = _route_head(first, _MAIN) + attribute(_PREFSRC, first.source) + attribute(_MULTIPATH, hops)
    return _message(_NEW_ROUTE, _CREATE | _REPLACE, body)


def in_table(route: Route, table: int) -> bytes:
    """Install an encapsulation route in a table of its own; replaces what is there."""
    where = attribute(_PREFSRC, route.source) + attribute(_OIF, _U32(route.ifindex)) + _hop(route)
    return _message(_NEW_ROUTE, _CREATE | _REPLACE, _route_head(route, table) + where)


def out_of_table(route: Route, table: int) -> bytes:
    """Remove it."""
    return _message(_DELETE_ROUTE, 0, _route_head(route, table))


def address_delete(entry: Address) -> bytes:
    """Remove an address."""
    head = struct.pack("=BBBBI", _AF_INET6, 128, 0, 0, entry.ifindex)
    return _message(_DELETE_ADDRESS, 0, head + attribute(2, entry.address))


def rule(entry: MarkRule, *, delete: bool = False) -> bytes:
    """Have packets with a mark looked up in a table first, or no longer; refused (EEXIST) where they are already."""
    head = _RULE.pack(_AF_INET6, 0, 0, 0, _UNSPECIFIED, 0, 0, _TO_TABLE, 0)
    what = attribute(_PRIORITY, _U32(entry.priority)) + attribute(_FWMARK, _U32(entry.mark))
    what += attribute(_FWMASK, _U32(0xFFFF_FFFF)) + attribute(_TABLE, _U32(entry.table))
    if delete:
        return _message(_DELETE_RULE, 0, head + what)
    return _message(_NEW_RULE, _CREATE | _EXCLUSIVE, head + what + attribute(_PROTOCOL, bytes([_PROTO_STATIC])))


def marking(table: str, counts: Sequence[tuple[bytes, int]], first: int) -> list[bytes]:
    """Give every packet that leaves this namespace for an address one of so many marks, at random.

    Args:
        table: name of the nf_tables table that does it, which must not be there.
        counts: (address, how many marks) of each.
        first: the lowest mark.
    """
    requests = [nft.table(table, exclusive=True, family=nft.IPV6), nft.rerouting_chain(table, _CHAIN)]
    for address, count in counts:
        to_it = nft.header(_DESTINATION, _ADDRESS_BYTES) + nft.equal(address)
        requests.append(nft.rule(table, _CHAIN, to_it + nft.mark_at_random(first, count), nft.IPV6))
    return requests


def no_marking(table: str) -> list[bytes]:
    """Remove it whether or not it is there."""
    return [nft.table(table, family=nft.IPV6), nft.table_delete(table, nft.IPV6)]
