"""SRv6 in routes, as rtnetlink attributes: what pyroute2 0.9 does not know of it (linux/seg6_local.h)."""

from __future__ import annotations

import struct
from typing import Any

from pyroute2.netlink import nla
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from testbed.fabric.netns.state import Action

_ENCAP_SEG6, _ENCAP_SEG6_LOCAL = 5, 7
_ACTION_END, _ACTION_END_DT6 = 1, 7
_FLAVOUR_NEXT_CSID = 1 << 4
_MODE_ENCAP_RED = 3
_BLOCK_BITS, _NODE_BITS = 32, 16
_TABLE_LOCAL = 255


class _SegLocal(nla):  # type: ignore[misc]
    """seg6local with what pyroute2 0.9 does not know: flavours and counters (linux/seg6_local.h)."""

    nla_map = (
        ("SEG6_LOCAL_UNSPEC", "none"),
        ("SEG6_LOCAL_ACTION", "uint32"),
        ("SEG6_LOCAL_SRH", "none"),
        ("SEG6_LOCAL_TABLE", "uint32"),
        ("SEG6_LOCAL_NH4", "none"),
        ("SEG6_LOCAL_NH6", "none"),
        ("SEG6_LOCAL_IIF", "none"),
        ("SEG6_LOCAL_OIF", "none"),
        ("SEG6_LOCAL_BPF", "none"),
        ("SEG6_LOCAL_VRFTABLE", "uint32"),
        ("SEG6_LOCAL_COUNTERS", "counters"),
        ("SEG6_LOCAL_FLAVORS", "flavours"),
    )

    class counters(nla):  # type: ignore[misc]  # noqa: N801 - pyroute2 finds it by this name
        nla_map = (
            ("SEG6_LOCAL_CNT_UNSPEC", "none"),
            ("SEG6_LOCAL_CNT_PAD", "none"),
            ("SEG6_LOCAL_CNT_PACKETS", "uint64"),
            ("SEG6_LOCAL_CNT_BYTES", "uint64"),
            ("SEG6_LOCAL_CNT_ERRORS", "uint64"),
        )

    class flavours(nla):  # type: ignore[misc]  # noqa: N801
        nla_map = (
            ("SEG6_LOCAL_FLV_UNSPEC", "none"),
            ("SEG6_LOCAL_FLV_OPERATION", "uint32"),
            ("SEG6_LOCAL_FLV_LCBLOCK_BITS", "uint8"),
            ("SEG6_LOCAL_FLV_LCNODE_FN_BITS", "uint8"),
        )


class _Seg6(nla):  # type: ignore[misc]
    """seg6 encapsulation with the tunnel information as raw bytes: pyroute2 0.9 does not know encap.red."""

    nla_map = (("SEG6_IPTUNNEL_UNSPEC", "none"), ("SEG6_IPTUNNEL_SRH", "cdata"))


class RouteMessage(rtmsg):  # type: ignore[misc]
    """A route request whose encapsulation is one of the two above."""

    encaps = {**rtmsg.encaps, _ENCAP_SEG6: _Seg6, _ENCAP_SEG6_LOCAL: _SegLocal}  # noqa: RUF012


def encapsulation(action: Action, segment: bytes) -> list[tuple[str, Any]]:
    """The attributes of a route that say what its action does to a packet; ``segment``: where ENCAPSULATE leads."""
    if action == Action.FORWARD:
        return []
    if action == Action.ENCAPSULATE:
        return [("RTA_ENCAP_TYPE", _ENCAP_SEG6), ("RTA_ENCAP", {"attrs": [("SEG6_IPTUNNEL_SRH", srh(segment))]})]
    local: list[tuple[str, Any]]
    if action == Action.DECAPSULATE:
        local = [("SEG6_LOCAL_ACTION", _ACTION_END_DT6), ("SEG6_LOCAL_TABLE", _TABLE_LOCAL)]
    else:
        local = [("SEG6_LOCAL_ACTION", _ACTION_END)]
    if action == Action.UN:
        flavours = [
            ("SEG6_LOCAL_FLV_OPERATION", _FLAVOUR_NEXT_CSID),
            ("SEG6_LOCAL_FLV_LCBLOCK_BITS", _BLOCK_BITS),
            ("SEG6_LOCAL_FLV_LCNODE_FN_BITS", _NODE_BITS),
        ]
        local.append(("SEG6_LOCAL_FLAVORS", {"attrs": flavours}))
    if action in (Action.UN, Action.DROP):
        counters = [(f"SEG6_LOCAL_CNT_{name}", 0) for name in ("PACKETS", "BYTES", "ERRORS")]
        local.append(("SEG6_LOCAL_COUNTERS", {"attrs": counters}))
    return [("RTA_ENCAP_TYPE", _ENCAP_SEG6_LOCAL), ("RTA_ENCAP", {"attrs": local})]


def srh(segment: bytes) -> bytes:
    """struct seg6_iptunnel_encap: mode, then an SRH of one segment, which encap.red leaves out of the packet."""
    header = struct.pack("!BBBBBBH", 0, 2, 4, 0, 0, 0, 0)
    return struct.pack("=i", _MODE_ENCAP_RED) + header + segment
