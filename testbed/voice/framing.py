"""The header before each datagram between relay and transceiver, or between relays: which client, and who says so.

| bytes | what |
|---|---|
| 0 | direction: 0xf5 inward, to the transceiver; 0xf6 outward, to the client |
| 1 | version 1 in the upper four bits; bit 0: another header follows |
| 2 | id of the seal key, id of the link key, four bits each |
| 3–4 | cluster |
| 5–7 | transceiver |
| 8–11 | when it was sealed: CLOCK_REALTIME in seconds, modulo 2^32 |
| 12–13 | steering: which of a relay's workers takes it, modulo their number |
| 14–15 | the client's port |
| 16–31 | the client's IPv6 address, or its IPv4 address as ::ffff:a.b.c.d |
| 32–39 | seal: keyed BLAKE2s (RFC 7693) of bytes 1–31 with a key that only relays have, cut to 64 bits |
| 40–47 | link tag: the same of bytes 0–39 with a key that relays and transceivers have |

Numbers are in network order. The payload follows, as the client sent it. Both first bytes are of a range that no
protocol of RFC 7983 uses, so that a framed datagram cannot be taken for a client's.

Who answers sends the headers back in their order, with the direction and the link tag changed (:func:`answer`) and
all else as it was. A relay takes such a header only with its seal: nobody else can name a client to it, and the client
is in it, so that the relay needs no state. A header is good for :data:`VALID_S` after its sealing; relays seal anew
more often than that, and who answers uses the newest it has. A relay that gets a framed datagram from another puts
its own header before it, in which the other relay stands as the client.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from testbed.voice.addresses import PACKED_BYTES, Address
from testbed.voice.keys import Keys

HEADER_BYTES: Final = 48
INWARD: Final = 0xF5
OUTWARD: Final = 0xF6
VERSION: Final = 1
#: A client's datagram passes two relays at most.
MOST_HEADERS: Final = 2
#: How long a header may be answered with, seconds after its sealing.
VALID_S: Final = 120
#: How far clocks of relays and transceivers may be apart, seconds.
SKEW_S: Final = 30
STEERING_AT: Final = 12
_TAG_BYTES: Final = 8
_LAYOUT: Final = struct.Struct(">BBBH3sIH18s")
_SEALED: Final = slice(1, 32)
_SEAL: Final = slice(32, 40)
_LINKED: Final = slice(0, 40)
_LINK: Final = slice(40, 48)


class Fault(StrEnum):
    """Why a header is refused."""

    SHORT = "frame_short"
    DIRECTION = "frame_direction"
    VERSION = "frame_version"
    DEPTH = "frame_depth"
    KEY = "frame_key"
    TAG = "frame_tag"
    AGE = "frame_age"


class FramingError(ValueError):
    """The header is none that this end may act on."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Header:
    """What an authentic header says.

    Attributes:
        client: to whom an answer goes: a client, or the relay before this one.
        cluster, transceiver: where the call belongs.
        more: another header follows.
        sealed_s: when it was sealed, CLOCK_REALTIME in seconds modulo 2^32.
        steering: 0 to 65,535.
    """

    client: Address
    cluster: int
    transceiver: int
    more: bool
    sealed_s: int
    steering: int


@dataclass(frozen=True, slots=True)
class Unframed:
    """A datagram as a transceiver takes it.

    Attributes:
        headers: all of them, as :func:`answer` wants them.
        client: the client itself, from the last header.
        payload: what the client sent.
    """

    headers: bytes
    client: Address
    payload: bytes


def seal(
    client: Address,
    cluster: int,
    transceiver: int,
    keys: Keys,
    now_s: int,
    *,
    more: bool = False,
    steering: int | None = None,
) -> bytes:
    """Make an inward header. ``steering``: else a hash of the client's address."""
    assert keys.seal is not None
    seal_id, seal_key = keys.seal.current
    link_id, link_key = keys.link.current
    packed = client.packed
    head = _LAYOUT.pack(
        INWARD,
        VERSION << 4 | more,
        seal_id << 4 | link_id,
        cluster,
        transceiver.to_bytes(3, "big"),
        now_s & 0xFFFFFFFF,
        zlib.crc32(packed) & 0xFFFF if steering is None else steering,
        packed,
    )
    sealed = head + _tag(head[_SEALED], seal_key, b"seal")
    return sealed + _tag(sealed, link_key, b"link")


def open_inward(header: bytes, keys: Keys, now_s: int) -> Header:
    """Read a header that a relay sent. Raises FramingError."""
    read, _ = _read(header, INWARD, keys, now_s)
    return read


def open_outward(header: bytes, keys: Keys, now_s: int) -> Header:
    """Read a header that a relay with these keys sealed, and a transceiver or relay returned. Raises FramingError."""
    assert keys.seal is not None
    read, seal_id = _read(header, OUTWARD, keys, now_s)
    key = keys.seal.keys.get(seal_id)
    if key is None:
        raise FramingError(Fault.KEY)
    if not hmac.compare_digest(_tag(header[_SEALED], key, b"seal"), header[_SEAL]):
        raise FramingError(Fault.TAG)
    return read


def unframe(datagram: bytes, keys: Keys, now_s: int) -> Unframed:
    """Take a datagram from a relay apart, every header of it checked. Raises FramingError."""
    at = 0
    for _ in range(MOST_HEADERS):
        header = open_inward(datagram[at : at + HEADER_BYTES], keys, now_s)
        at += HEADER_BYTES
        if not header.more:
            return Unframed(datagram[:at], header.client, datagram[at:])
    raise FramingError(Fault.DEPTH)


def answer(headers: bytes, keys: Keys) -> bytes:
    """What stands before an answer: the same headers, outward. They are those of an :class:`Unframed`.

    Needed once per set of headers, not per datagram. Raises FramingError where a key is gone meanwhile.
    """
    return b"".join(
        _turned(headers[at : at + HEADER_BYTES], keys.link.keys) for at in range(0, len(headers), HEADER_BYTES)
    )


def _turned(header: bytes, keys: Mapping[int, bytes]) -> bytes:
    key = keys.get(header[2] & 15)
    if key is None:
        raise FramingError(Fault.KEY)
    outward = bytes([OUTWARD]) + header[1:40]
    return outward + _tag(outward, key, b"link")


def _read(header: bytes, direction: int, keys: Keys, now_s: int) -> tuple[Header, int]:
    """The header and the id of its seal's key; the link tag and the age are checked, the seal is not."""
    if len(header) < HEADER_BYTES:
        raise FramingError(Fault.SHORT)
    if header[0] != direction:
        raise FramingError(Fault.DIRECTION)
    if header[1] & 0xFE != VERSION << 4:
        raise FramingError(Fault.VERSION)
    key = keys.link.keys.get(header[2] & 15)
    if key is None:
        raise FramingError(Fault.KEY)
    if not hmac.compare_digest(_tag(header[_LINKED], key, b"link"), header[_LINK]):
        raise FramingError(Fault.TAG)
    _, flags, ids, cluster, transceiver, sealed_s, steering, packed = _LAYOUT.unpack_from(header)
    if not -SKEW_S <= _signed(now_s - sealed_s) <= VALID_S + (SKEW_S if direction == INWARD else 0):
        raise FramingError(Fault.AGE)
    client = Address.unpack(packed[:PACKED_BYTES])
    return Header(client, cluster, int.from_bytes(transceiver, "big"), bool(flags & 1), sealed_s, steering), ids >> 4


def _signed(seconds: int) -> int:
    """The difference of two stamps modulo 2^32, the nearer way round."""
    return (seconds + (1 << 31) & 0xFFFFFFFF) - (1 << 31)


def _tag(data: bytes, key: bytes, person: bytes) -> bytes:
    return hashlib.blake2s(data, digest_size=_TAG_BYTES, key=key, person=person).digest()
