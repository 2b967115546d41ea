"""As much of STUN (RFC 8489) as relays and ICE-lite transceivers need, and what tests and load generators build.

Reading is bounded: no length in the message is believed before it was held against what is there.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

MAGIC_COOKIE: Final = 0x2112A442
HEADER_BYTES: Final = 20
BINDING_REQUEST: Final = 0x0001
BINDING_SUCCESS: Final = 0x0101
BINDING_ERROR: Final = 0x0111
USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
UNKNOWN_ATTRIBUTES: Final = 0x000A
XOR_MAPPED_ADDRESS: Final = 0x0020
PRIORITY: Final = 0x0024
USE_CANDIDATE: Final = 0x0025
FINGERPRINT: Final = 0x8028
ICE_CONTROLLED: Final = 0x8029
ICE_CONTROLLING: Final = 0x802A
#: RFC 8489 section 14.3: fewer than 509 bytes.
MOST_USERNAME: Final = 508
_MOST_ATTRIBUTES: Final = 64
_FINGERPRINT_XOR: Final = 0x5354554E
_FINGERPRINT_HEAD: Final = struct.pack(">HH", FINGERPRINT, 4)
_HEADER: Final = struct.Struct(">HHI12s")


class Kind(IntEnum):
    """What a datagram is by its first byte (RFC 7983 section 7)."""

    OTHER = 0
    STUN = 1
    DTLS = 2
    RTP = 3
    ZRTP = 4
    TURN = 5


def _kind(first: int) -> Kind:
    for kind, (low, high) in _RANGES.items():
        if low <= first <= high:
            return kind
    return Kind.OTHER


_RANGES: Final = {
    Kind.STUN: (0, 3),
    Kind.ZRTP: (16, 19),
    Kind.DTLS: (20, 63),
    Kind.TURN: (64, 79),
    Kind.RTP: (128, 191),
}
#: :class:`Kind` by first byte. RTP and RTCP are one kind.
KINDS: Final = bytes(_kind(first) for first in range(256))


class StunError(ValueError):
    """The datagram is no STUN message, or a damaged one."""


def message_type(datagram: bytes) -> int:
    """The type of a STUN message whose header is right: its length is the datagram's, the cookie is there.

    Raises StunError.
    """
    if len(datagram) < HEADER_BYTES:
        raise StunError("shorter than a header")
    kind, length, cookie, _ = _HEADER.unpack_from(datagram)
    if kind & 0xC000 or cookie != MAGIC_COOKIE:
        raise StunError("not the bits of STUN, or not its cookie")
    if length % 4 or length != len(datagram) - HEADER_BYTES:
        raise StunError("its length is not that of the datagram")
    return int(kind)


def attributes(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Types and values, in order, of a message that :func:`message_type` took. Raises StunError at a damaged one."""
    at, end = HEADER_BYTES, len(datagram)
    for _ in range(_MOST_ATTRIBUTES):
        if at == end:
            return
        if end - at < 4:
            raise StunError("an attribute is cut")
        kind, length = struct.unpack_from(">HH", datagram, at)
        at += 4
        if length > end - at:
            raise StunError("an attribute is longer than the message")
        yield kind, datagram[at : at + length]
        at += length + 3 & ~3
    if at != end:
        raise StunError("more attributes than anybody sends")


def server_ufrag(datagram: bytes) -> bytes | None:
    """The receiver's ufrag in a client's binding request: what stands before the colon of USERNAME.

    RFC 8445 section 7.2.2. None in any other message, and in one without USERNAME, such as a response. Raises
    StunError.
    """
    if message_type(datagram) != BINDING_REQUEST:
        return None
    for kind, value in attributes(datagram):
        if kind == USERNAME:
            ufrag, colon, _ = value.partition(b":")
            if not colon or len(value) > MOST_USERNAME:
                raise StunError("USERNAME is not that of a connectivity check")
            return ufrag
    return None


def message(kind: int, pairs: list[tuple[int, bytes]], transaction: bytes | None = None, password: str = "") -> bytes:
    """Build a message, with MESSAGE-INTEGRITY where a password is given, and FINGERPRINT.

    Args:
        kind: such as :data:`BINDING_REQUEST`.
        pairs: attributes: types and values.
        transaction: 12 bytes; else random.
        password: of the receiver, for RFC 8489 section 14.5.
    """
    body = b"".join(_attribute(number, value) for number, value in pairs)
    transaction = transaction or secrets.token_bytes(12)
    if password:
        covered = _HEADER.pack(kind, len(body) + 24, MAGIC_COOKIE, transaction) + body
        body += _attribute(MESSAGE_INTEGRITY, hmac.new(password.encode(), covered, hashlib.sha1).digest())
    covered = _HEADER.pack(kind, len(body) + 8, MAGIC_COOKIE, transaction) + body
    return covered + _attribute(FINGERPRINT, struct.pack(">I", zlib.crc32(covered) ^ _FINGERPRINT_XOR))


def has_fingerprint(datagram: bytes) -> bool:
    """Whether a message that :func:`message_type` took ends with a FINGERPRINT that fits (RFC 8489 section 14.7)."""
    if len(datagram) < HEADER_BYTES + 8 or datagram[-8:-4] != _FINGERPRINT_HEAD:
        return False
    return int.from_bytes(datagram[-4:], "big") == zlib.crc32(datagram[:-8]) ^ _FINGERPRINT_XOR


def has_integrity(datagram: bytes, at: int, password: str) -> bool:
    """Whether the MESSAGE-INTEGRITY whose header is at ``at`` fits (RFC 8489 section 14.5); constant time."""
    covered = datagram[:2] + struct.pack(">H", at + 24 - HEADER_BYTES) + datagram[4:at]
    made = hmac.new(password.encode(), covered, hashlib.sha1).digest()
    return hmac.compare_digest(made, datagram[at + 4 : at + 24])


def xor_address(ip: bytes, port: int, transaction: bytes) -> bytes:
    """The value of XOR-MAPPED-ADDRESS (RFC 8489 section 14.2). ``ip``: 4 or 16 bytes."""
    mask = struct.pack(">I", MAGIC_COOKIE) + transaction
    family = 1 if len(ip) == 4 else 2
    xored = bytes(a ^ b for a, b in zip(ip, mask, strict=False))
    return struct.pack(">BBH", 0, family, port ^ MAGIC_COOKIE >> 16) + xored


def error_code(code: int, reason: str = "") -> bytes:
    """The value of ERROR-CODE (RFC 8489 section 14.8)."""
    return struct.pack(">HBB", 0, code // 100, code % 100) + reason.encode()


def binding_request(ufrag: str, peer: str = "peer", password: str = "", transaction: bytes | None = None) -> bytes:
    """A connectivity check to the holder of ``ufrag`` from that of ``peer``."""
    pairs = [(USERNAME, f"{ufrag}:{peer}".encode()), (PRIORITY, struct.pack(">I", 0x6E0001FF))]
    return message(BINDING_REQUEST, pairs, transaction, password)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)
