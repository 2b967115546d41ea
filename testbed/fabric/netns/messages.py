"""State entries as rtnetlink requests.

pyroute2 encodes one request of each shape; further ones are copies with the values patched in, for encoding one
veth request with its classes costs 0.4 ms and a fabric may have ten thousand. It is imported with the first template:
it takes a third of the start of a command, and most commands on a running fabric change nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache
from typing import Any

from testbed.fabric.netns.state import Action, Address, Device, Neighbour, Route, Shaper

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR = 16, 18, 20
RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNEIGH, RTM_NEWQDISC = 24, 25, 28, 36
NLM_F_REQUEST, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x100, 0x200, 0x400
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_SKIP_STATS = 1 << 3
_AF_INET6, _AF_UNSPEC = 10, 0
_NUD_PERMANENT = 0x80
_IFA_F_NODAD_NOPREFIXROUTE = 0x02 | 0x200
_RTPROT_STATIC, _RTN_UNICAST, _TABLE_MAIN = 4, 1, 254


#: Bytes of a request before its attributes, at least: the netlink header and the ifindex that follows it.
_FIXED_PART = 24


class _Template:
    """An encoded request and where in it each value stands."""

    def __init__(self, message: Any, kind: int, flags: int, **values: bytes) -> None:
        message["header"]["type"] = kind
        message["header"]["flags"] = NLM_F_REQUEST | flags
        message.encode()
        self._data = bytes(message.data)
        self._places = {}
        for name, value in values.items():
            # In the fixed part an ifindex comes before anything that could look like its placeholder.
            if self._data.count(value) != 1 and self._data.find(value) not in range(_FIXED_PART):
                raise ValueError(f"placeholder {name} stands {self._data.count(value)} times in its template")
            self._places[name] = (self._data.index(value), len(value))

    def __call__(self, **values: bytes) -> bytes:
        data = bytearray(self._data)
        for name, value in values.items():
            place, length = self._places[name]
            if len(value) != length:
                raise ValueError(f"{name} takes {length} bytes, not {len(value)}")
            data[place : place + length] = value
        return bytes(data)


_U32 = struct.Struct("=I").pack
_MARK_A, _MARK_B, _MARK_C = 0x7A11CE01, 0x7A11CE02, 0x7A11CE03
_ADDRESS_A, _ADDRESS_B = "fdaa:1:2:3:4:5:6:7", "fdbb:1:2:3:4:5:6:7"
_ADDRESS_A_BYTES = bytes.fromhex("fdaa0001000200030004000500060007")
_ADDRESS_B_BYTES = bytes.fromhex("fdbb0001000200030004000500060007")
_MAC_A, _MAC_B = "02:aa:aa:aa:aa:01", "02:bb:bb:bb:bb:02"


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def join(requests: Iterable[bytes]) -> bytes:
    """Requests as one batch, numbered so that a refusal can be told from the others."""
    batch = bytearray()
    for number, message in enumerate(requests):
        start = len(batch)
        batch += message
        struct.pack_into("=I", batch, start + 8, number)
    return bytes(batch)


@cache
def _veth(name: str, peer_name: str, mtu: int) -> _Template:
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    def end(label: str, mac: str, namespace: int) -> list[tuple[str, Any]]:
        return [
            ("IFLA_IFNAME", label),
            ("IFLA_MTU", mtu),
            ("IFLA_ADDRESS", mac),
            ("IFLA_NET_NS_FD", namespace),
            # One queue each: the default of one per processor costs memory and brings nothing to a veth.
            ("IFLA_NUM_TX_QUEUES", 1),
            ("IFLA_NUM_RX_QUEUES", 1),
        ]

    # Neighbours are permanent entries. Without their discovery an address joins no multicast group, which the kernel
    # would report every time a link comes up: counters of both ends tell packets of workloads and nothing else.
    quiet = {"flags": _IFF_NOARP, "change": _IFF_NOARP}
    message = ifinfmsg()
    message["index"] = _MARK_A
    message["flags"], message["change"] = quiet["flags"], quiet["change"]
    attributes = end(name, _MAC_A, 1)
    del attributes[3]
    peer = {"index": _MARK_B, **quiet, "attrs": end(peer_name, _MAC_B, _MARK_C)}
    message["attrs"] = [
        *attributes,
        (
            "IFLA_LINKINFO",
            {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]},
        ),
    ]
    return _Template(
        message,
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        index=_U32(_MARK_A),
        peer_index=_U32(_MARK_B),
        peer_namespace=_U32(_MARK_C),
        mac=_mac(_MAC_A),
        peer_mac=_mac(_MAC_B),
    )


def veth(device: Device, peer: Device, peer_namespace_fd: int) -> bytes:
    """Create a veth pair: ``device`` where the request is executed, ``peer`` in another namespace; both down."""
    return _veth(device.name, peer.name, device.mtu)(
        index=_U32(device.ifindex),
        peer_index=_U32(peer.ifindex),
        peer_namespace=_U32(peer_namespace_fd),
        mac=device.mac,
        peer_mac=peer.mac,
    )


@cache
def _link(flags: int) -> _Template:
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    message = ifinfmsg()
    message["index"] = _MARK_A
    message["flags"] = flags
    message["change"] = _IFF_UP
    return _Template(message, RTM_NEWLINK, 0, index=_U32(_MARK_A))


def link_up(index: int) -> bytes:
    """Set an interface up."""
    return _link(_IFF_UP)(index=_U32(index))


def link_down(index: int) -> bytes:
    """Set an interface down; the kernel then removes its routes and neighbours."""
    return _link(0)(index=_U32(index))


@cache
def _link_query() -> _Template:
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    message = ifinfmsg()
    message["index"] = _MARK_A
    message["attrs"] = [("IFLA_EXT_MASK", _SKIP_STATS)]
    return _Template(message, RTM_GETLINK, 0, index=_U32(_MARK_A))


def link_query(index: int) -> bytes:
    """Ask for an interface, without its statistics."""
    return _link_query()(index=_U32(index))


@cache
def _address() -> _Template:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    message = ifaddrmsg()
    message["family"] = _AF_INET6
    message["prefixlen"] = 128
    message["index"] = _MARK_A
    message["attrs"] = [("IFA_LOCAL", _ADDRESS_A), ("IFA_FLAGS", _IFA_F_NODAD_NOPREFIXROUTE)]
    return _Template(message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index=_U32(_MARK_A), address=_ADDRESS_A_BYTES)


def address(entry: Address) -> bytes:
    """Set an address."""
    return _address()(index=_U32(entry.ifindex), address=entry.address)


@cache
def _neighbour() -> _Template:
    from pyroute2.netlink.rtnl.ndmsg import ndmsg

    message = ndmsg()
    message["family"] = _AF_INET6
    message["ifindex"] = _MARK_A
    message["state"] = _NUD_PERMANENT
    message["attrs"] = [("NDA_DST", _ADDRESS_A), ("NDA_LLADDR", _MAC_A)]
    return _Template(
        message,
        RTM_NEWNEIGH,
        NLM_F_CREATE | NLM_F_REPLACE,
        index=_U32(_MARK_A),
        address=_ADDRESS_A_BYTES,
        mac=_mac(_MAC_A),
    )


def neighbour(entry: Neighbour) -> bytes:
    """Set a permanent neighbour entry."""
    return _neighbour()(index=_U32(entry.ifindex), address=entry.address, mac=entry.mac)


@cache
def _route(action: Action, length: int, source: bool) -> _Template:
    from testbed.fabric.netns.seg6 import RouteMessage, encapsulation

    message = RouteMessage()
    message["family"] = _AF_INET6
    message["dst_len"] = length
    message["table"] = _TABLE_MAIN
    message["proto"] = _RTPROT_STATIC
    message["type"] = _RTN_UNICAST
    message["attrs"] = [("RTA_DST", _ADDRESS_A), ("RTA_OIF", _MARK_A), *encapsulation(action, _ADDRESS_B_BYTES)]
    places = {"prefix": _ADDRESS_A_BYTES, "index": _U32(_MARK_A)}
    if action == Action.FORWARD:
        message["attrs"].append(("RTA_GATEWAY", "fe80::1"))
    if action == Action.ENCAPSULATE:
        places["segment"] = _ADDRESS_B_BYTES
    if source:
        message["attrs"].append(("RTA_PREFSRC", "fdcc:1:2:3:4:5:6:7"))
        places["source"] = bytes.fromhex("fdcc0001000200030004000500060007")
    return _Template(message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, **places)


def _route_values(route: Route) -> dict[str, bytes]:
    values = {"prefix": route.prefix, "index": _U32(route.ifindex)}
    if route.action == Action.ENCAPSULATE:
        values["segment"] = route.segment
    if route.source:
        values["source"] = route.source
    return values


def route(entry: Route) -> bytes:
    """Install a route, in place of one to the same prefix."""
    return _route(entry.action, entry.length, bool(entry.source))(**_route_values(entry))


@cache
def _prefix_delete(length: int) -> _Template:
    from testbed.fabric.netns.seg6 import RouteMessage

    message = RouteMessage()
    message["family"] = _AF_INET6
    message["dst_len"] = length
    message["table"] = _TABLE_MAIN
    message["attrs"] = [("RTA_DST", _ADDRESS_A)]
    return _Template(message, RTM_DELROUTE, 0, prefix=_ADDRESS_A_BYTES)


def prefix_delete(entry: Route) -> bytes:
    """Remove the route to a route's prefix, by whatever interface it leads."""
    return _prefix_delete(entry.length)(prefix=entry.prefix)


@cache
def _shaper(rate: int, limit: int, burst: int) -> _Template:
    from pyroute2.netlink.rtnl.tcmsg import sched_tbf, tcmsg

    message = tcmsg()
    message["index"] = _MARK_A
    message["parent"] = 0xFFFF_FFFF
    message["handle"] = 1 << 16
    options = sched_tbf.get_parameters({"rate": rate, "burst": burst, "limit": limit})
    message["attrs"] = [("TCA_KIND", "tbf"), ("TCA_OPTIONS", options)]
    return _Template(message, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, index=_U32(_MARK_A))


def shaper(entry: Shaper, burst: int) -> bytes:
    """Shape an interface with a token bucket; ``burst`` in bytes, at least one packet."""
    return _shaper(entry.rate, entry.limit, burst)(index=_U32(entry.ifindex))
