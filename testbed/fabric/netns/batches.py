"""Netlink batches as a keeper's request, and what it answers about them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from testbed.errors import InfrastructureError, UnsupportedError
from testbed.fabric.netns import messages
from testbed.fabric.netns.channel import Message

#: What a kernel answers to something it does not know.
CANNOT = (errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL, errno.EPROTONOSUPPORT)

#: Number of a namespace, and netlink messages for it.
Batch = tuple[int, bytes]


@dataclass(frozen=True)
class Refused:
    """A netlink message the kernel refused: batch and index within it, errno, the kernel's words."""

    batch: int
    index: int
    errno: int
    text: str


@dataclass(frozen=True)
class Executed:
    """What became of netlink batches."""

    refusals: tuple[Refused, ...]


def netlink_request(batches: Iterable[Batch]) -> tuple[Message, bytes]:
    """The request that carries out netlink batches, and its payload."""
    listed = list(batches)
    message: Message = {"op": "netlink", "batches": [[namespace, len(data)] for namespace, data in listed]}
    return message, b"".join(data for _, data in listed)


def executed(answer: Message) -> Executed:
    """The answer to a netlink request, typed."""
    return Executed(tuple(Refused(*refusal) for refusal in answer["refusals"]))


def words(number: int, text: str) -> str:
    """What the kernel said: its error, and its own text where it gave one."""
    return f"{os.strerror(number)} ({errno.errorcode.get(number, number)}) {text}".strip()


@dataclass(frozen=True)
class Part:
    """Netlink requests for a namespace; ``resource``: while that is claimed, its claim is put in force instead."""

    namespace: int
    requests: Sequence[bytes]
    resource: str | None = None


@dataclass(frozen=True)
class Tally:
    """What a claim counts, and how it is read when it ends; see :class:`testbed.fabric.netns.keeper.tallies.Tally`."""

    label: str
    namespace: int
    stop: Sequence[bytes]
    ask: bytes
    table: str


@dataclass(frozen=True)
class ClaimRequest:
    """A claim as the keeper is asked for it; see :class:`testbed.fabric.netns.keeper.claims.Wanted`."""

    resource: str
    do: Sequence[Part] = ()
    base: Sequence[Part] = ()
    do_signals: Sequence[tuple[int, int]] = ()
    base_signals: Sequence[tuple[int, int]] = ()
    alone: bool = False
    after: Sequence[str] = ()
    tolerated: frozenset[int] = frozenset()
    closes: int | None = None
    tally: Tally | None = None


@dataclass(frozen=True)
class Held:
    """A claim that somebody holds: its resource, the fault's id, what a person calls it."""

    resource: str
    id: str
    what: str


def claim_request(fault: str, what: str, requests: Sequence[ClaimRequest]) -> tuple[Message, bytes]:
    """The request that puts claims in force, and its payload."""
    payload = bytearray()

    def parts(several: Sequence[Part]) -> list[tuple[str | None, int, int]]:
        told = []
        for part in several:
            data = messages.join(part.requests)
            payload.extend(data)
            told.append((part.resource, part.namespace, len(data)))
        return told

    def tally(of: Tally | None) -> tuple[str, int, int, int, str] | None:
        if of is None:
            return None
        stop = messages.join(of.stop)
        payload.extend(stop + of.ask)
        return of.label, of.namespace, len(stop), len(of.ask), of.table

    claims = [
        {
            "resource": each.resource,
            "do": parts(each.do),
            "do_signals": list(each.do_signals),
            "base": parts(each.base),
            "base_signals": list(each.base_signals),
            "alone": each.alone,
            "after": list(each.after),
            "tolerated": sorted(each.tolerated),
            "closes": each.closes,
            "tally": tally(each.tally),
        }
        for each in requests
    ]
    return {"op": "claim", "id": fault, "what": what, "claims": claims}, bytes(payload)


def raise_refused(refused: Sequence[tuple[str, int, int, int, str]], message: str) -> None:
    """Raise what the kernel refused of claims, if anything, as an error that names resource and cause."""
    if not refused:
        return
    resource, _, index, number, text = refused[0]
    kind = UnsupportedError if number in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT) else InfrastructureError
    raise kind(message, where=f"{resource}, request {index}", found=words(number, text))
