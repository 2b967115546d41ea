"""Netlink batches as a keeper's request, and what it answers about them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from testbed.fabric.netns.channel import Message

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
    """What became of netlink batches.

    ``stamps``: per batch, CLOCK_REALTIME before and after (ns), once per batch, or per message where asked for.
    """

    refusals: tuple[Refused, ...]
    stamps: tuple[tuple[tuple[int, int], ...], ...]


def netlink_request(batches: Iterable[Batch], *, stamped: bool = False) -> tuple[Message, bytes]:
    """The request that carries out netlink batches, and its payload."""
    listed = list(batches)
    message: Message = {"op": "netlink", "batches": [[namespace, len(data)] for namespace, data in listed]}
    if stamped:
        message["stamped"] = True
    return message, b"".join(data for _, data in listed)


def executed(answer: Message) -> Executed:
    """The answer to a netlink request, typed."""
    return Executed(
        tuple(Refused(*refusal) for refusal in answer["refusals"]),
        tuple(tuple((before, after) for before, after in batch) for batch in answer["stamps"]),
    )
