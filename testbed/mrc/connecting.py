"""From two queue pairs' attributes to a connection between them."""

from __future__ import annotations

import ipaddress
import zlib

import numpy as np

from testbed.errors import UsageError
from testbed.mrc.evs import EvSet
from testbed.mrc.memory import Memory
from testbed.mrc.qp import QpAttributes, State
from testbed.mrc.queuepair import Connection, QueuePair
from testbed.mrc.requester import Requester
from testbed.mrc.responder import Responder
from testbed.mrc.settings import Settings


def check_fit(qp: QueuePair, remote: QpAttributes, settings: Settings) -> None:
    """Raise UsageError for a queue pair that is connected already, or another NIC's attributes or path MTU."""
    if qp.state is not State.INIT:
        raise UsageError("a queue pair is connected once", found=qp.state.name, expected=State.INIT.name)
    where = f"queue pair {qp.attributes.qpn} to {qp.peer.name}"
    if ipaddress.IPv6Address(remote.address) != ipaddress.IPv6Address(qp.peer.address):
        raise UsageError(
            "these attributes are of another NIC",
            where=where,
            found=remote.address,
            expected=qp.peer.address,
            remedy="create the queue pair with the peer whose attributes these are",
        )
    if remote.pmtu != settings.pmtu:
        raise UsageError(
            "both ends need the same path MTU",
            where=where,
            found=f"{remote.pmtu} there",
            expected=f"{settings.pmtu} as here",
            remedy="give both NICs the same pmtu",
        )


def connected(
    qp: QueuePair, remote: QpAttributes, settings: Settings, memory: Memory, *, seed: int, denied: set[int], now_ns: int
) -> Connection:
    """Both halves of a queue pair that fits ``remote``; ``denied``: the EVs that a controller forbids."""
    peer = qp.peer
    evs = EvSet(peer.evs, peer.planes, settings.evs, seed=seed, qp=qp.index, told=peer.reverse.heard_of)
    requester = Requester(
        qp.index, remote.qpn, qp.attributes.psn, remote.mpr, settings, evs, peer.destination, peer.planes
    )
    responder = Responder(qp.index, remote.qpn, remote.psn, memory, settings)
    peer.introduce(evs, now_ns)
    if denied:
        evs.set_denied(evs.index_of(np.array(sorted(denied), np.uint32)), True, now_ns)
    if settings.pinned:
        _pin(
            evs,
            len(peer.evs),
            f"{seed} {qp.attributes.address} {remote.address} {qp.attributes.qpn} {remote.qpn}",
            now_ns,
        )
    return Connection(remote.qpn, evs, requester, responder)


def _pin(evs: EvSet, count: int, ends: str, now_ns: int) -> None:
    """Keep to one EV of ``count``, drawn by a hash of what tells this flow from others."""
    drawn = zlib.crc32(ends.encode()) % count
    evs.set_denied(np.delete(np.arange(count), drawn), True, now_ns)
    evs.take_events()  # no controller did this
