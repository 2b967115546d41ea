"""Packets that a host sends out of its ports and looks for on them: what a check proves paths by.

A driver that can do it has :class:`FrameExchange`, and names ``frames`` in its ``capabilities``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Frame:
    """One packet to send.

    Attributes:
        number: its own within the exchange, below 2³².
        port: port of the fabric it leaves by. mac: of the port at the other end of the cable.
        source, destination: outer IPv6 addresses. final: the destination as it is when it arrives.
        size: bytes of the IPv6 packet.
    """

    number: int
    port: str
    mac: str
    source: str
    destination: str
    final: str
    size: int


@dataclass(frozen=True)
class Exchanged:
    """What became of an exchange on one host.

    Attributes:
        refused: number → why the host did not send it.
        received: number → the port of the fabric it came in by, whoever had sent it.
        send_s: how long sending took. took_s: from when it began to listen until it ended.
    """

    refused: Mapping[int, str]
    received: Mapping[int, str]
    send_s: float
    took_s: float


@runtime_checkable
class FrameExchange(Protocol):
    """``frames``: sending packets, and seeing which arrive; nothing is left on the host."""

    def exchange(self, run: str, frames: Sequence[Frame], *, rate: float, lead_s: float, listen_s: float) -> Exchanged:
        """Listen on every port of the cable map, and send after a while.

        Args:
            run: 16 hex digits; packets of other runs are not counted.
            frames: what to send, in this order.
            rate: bit/s of all that it sends, at most.
            lead_s: from when it listens until it sends, so that others listen too.
            listen_s: how long it listens after it has sent.
        """
        ...


@runtime_checkable
class ShowsCommands(Protocol):
    """A driver that tells by which commands a person sees what it sees."""

    #: Capability → the command on the device, with ``{port}`` for the device's name of a port.
    shows: Mapping[str, str]
