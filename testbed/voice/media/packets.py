"""RTP packets (RFC 3550 section 5.1), and their 16- and 32-bit numbers counted on.

Nothing in a packet is believed before it was held against the packet's length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_HEADER: Final = struct.Struct(">BBHII")
HEADER_BYTES: Final = _HEADER.size
_VERSION: Final = 0x80


class RtpError(ValueError):
    """The bytes are no RTP packet."""


@dataclass(frozen=True, slots=True)
class Packet:
    """An RTP packet; sequence number and timestamp as they travel."""

    payload_type: int
    seq: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    @classmethod
    def parse(cls, data: bytes) -> Packet:
        """Read one; extensions are passed over. Raises RtpError."""
        if len(data) < HEADER_BYTES:
            raise RtpError("shorter than a header")
        first, second, seq, timestamp, ssrc = _HEADER.unpack_from(data)
        if first & 0xC0 != _VERSION:
            raise RtpError("not version 2")
        at, end = HEADER_BYTES + 4 * (first & 15), len(data)
        if first & 0x10:
            if at + 4 > end:
                raise RtpError("its extension is cut")
            at += 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
        if first & 0x20:
            end -= data[-1]
            if not data[-1]:
                raise RtpError("padding of no bytes")
        if at > end:
            raise RtpError("its parts are longer than it")
        return cls(second & 0x7F, seq, timestamp, ssrc, data[at:end], bool(second & 0x80))

    def __bytes__(self) -> bytes:
        second = self.payload_type | self.marker << 7
        return _HEADER.pack(_VERSION, second, self.seq, self.timestamp, self.ssrc) + self.payload


def is_rtcp(data: bytes) -> bool:
    """Whether a packet of the range of RTP is RTCP (RFC 5761 section 4)."""
    return len(data) >= 2 and 192 <= data[1] <= 223


class Counter:
    """Counts a number of few bits on over its wraps: each value is taken as the nearest to the last."""

    def __init__(self, bits: int) -> None:
        self._size = 1 << bits
        self._last: int | None = None

    def of(self, value: int) -> int:
        """The whole number. The first is the value itself, one round up, so that none before it is negative."""
        if self._last is None:
            self._last = value + self._size
            return self._last
        half = self._size >> 1
        whole = self._last + (value - self._last + half) % self._size - half
        self._last = max(self._last, whole)
        return whole
