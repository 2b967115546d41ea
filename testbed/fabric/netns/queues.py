"""Queueing disciplines of faults, as rtnetlink requests: netem, and what gives a port its own queue again."""

from __future__ import annotations

import struct

from testbed.fabric.netns import messages
from testbed.fabric.netns.netlink import HEAD, attribute

_NEW, _DELETE = 36, 37
_TCMSG = struct.Struct("=BxxxiIII")
_ROOT, _SHAPER_CLASS = 0xFFFF_FFFF, 1 << 16 | 1
_NETEM_HANDLE = 2 << 16
_TCA_KIND, _TCA_OPTIONS, _NETEM_LATENCY64, _NETEM_JITTER64 = 1, 2, 10, 11
#: Packets that may be under way in a delayed link; netem's own default of 1,000 would lose some unsaid.
_NETEM_LIMIT = 1 << 20


def _qdisc(kind: int, flags: int, body: bytes) -> bytes:
    return HEAD.pack(HEAD.size + len(body), kind, messages.NLM_F_REQUEST | flags, 0, 0) + body


def root_delete(index: int) -> bytes:
    """Give an interface the kernel's default queue again."""
    return _qdisc(_DELETE, 0, _TCMSG.pack(0, index, 0, _ROOT, 0))


def netem(index: int, delay_s: float, jitter_s: float, *, below_shaper: bool) -> bytes:
    """Delay what leaves an interface, before its shaper's bucket where it has one."""
    place = _TCMSG.pack(0, index, _NETEM_HANDLE, _SHAPER_CLASS if below_shaper else _ROOT, 0)
    # struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter; times in the attributes below instead.
    options = struct.pack("=6I", 0, _NETEM_LIMIT, 0, 0, 0, 0)
    options += attribute(_NETEM_LATENCY64, struct.pack("=q", round(delay_s * 1e9)))
    options += attribute(_NETEM_JITTER64, struct.pack("=q", round(jitter_s * 1e9)))
    body = place + attribute(_TCA_KIND, b"netem\0") + attribute(_TCA_OPTIONS, options)
    return _qdisc(_NEW, messages.NLM_F_CREATE | messages.NLM_F_REPLACE, body)
