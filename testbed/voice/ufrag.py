"""The server's ICE ufrag: 32 ice-chars (RFC 8839 section 5.4) that say where a call belongs, and prove it.

An ice-char is a letter, a digit, ``+`` or ``/``: base64's alphabet, so that 24 bytes are 32 characters and nothing is
left over.

| bits | what |
|---|---|
| 0–3 | version, 1 |
| 4–7 | id of the key that made the tag |
| 8–23 | cluster, 0 to 65,535 |
| 24–47 | transceiver in its cluster, 0 to 16,777,215 |
| 48–95 | random: RFC 8839 asks for 24 bits at least |
| 96–191 | tag: keyed BLAKE2s (RFC 7693) of bits 0–95, cut to 96 bits |

Bit 0 is the most significant of the first byte; numbers are in network order.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

UFRAG_CHARS: Final = 32
VERSION: Final = 1
MOST_CLUSTER: Final = (1 << 16) - 1
MOST_TRANSCEIVER: Final = (1 << 24) - 1
RANDOM_BYTES: Final = 6
_BODY_BYTES: Final = 12
_TAG_BYTES: Final = 12
_PERSON: Final = b"ufrag"


@dataclass(frozen=True, slots=True)
class Ufrag:
    """What an authentic ufrag says.

    Attributes:
        cluster, transceiver: where the call belongs.
        random: 6 bytes that tell it from every other of the same transceiver.
        key: id of the key that it was made with.
    """

    cluster: int
    transceiver: int
    random: bytes
    key: int


class Refusal(StrEnum):
    """Why a text is not taken for a ufrag."""

    SHAPE = "ufrag_shape"
    VERSION = "ufrag_version"
    KEY = "ufrag_key"
    TAG = "ufrag_tag"


class UfragError(ValueError):
    """The text is no ufrag that these keys made."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(_SAYS[refusal])
        self.refusal = refusal


_SAYS: Final = {
    Refusal.SHAPE: f"not {UFRAG_CHARS} ice-chars",
    Refusal.VERSION: f"not version {VERSION}",
    Refusal.KEY: "made with a key that is not valid here",
    Refusal.TAG: "its tag does not fit: not made by who has the key, or changed",
}


def encode(cluster: int, transceiver: int, key_id: int, key: bytes, random: bytes | None = None) -> str:
    """Make a ufrag.

    Args:
        cluster: up to :data:`MOST_CLUSTER`.
        transceiver: up to :data:`MOST_TRANSCEIVER`.
        key_id: 0 to 15.
        key: 16 to 32 bytes.
        random: 6 bytes; else from the operating system's source.

    Raises ValueError for a number out of range.
    """
    if not 0 <= cluster <= MOST_CLUSTER or not 0 <= transceiver <= MOST_TRANSCEIVER or not 0 <= key_id < 16:
        raise ValueError(f"cluster {cluster}, transceiver {transceiver} or key {key_id} is out of range")
    random = secrets.token_bytes(RANDOM_BYTES) if random is None else random
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"{len(random)} random bytes, not {RANDOM_BYTES}")
    head = bytes([VERSION << 4 | key_id])
    body = head + cluster.to_bytes(2, "big") + transceiver.to_bytes(3, "big") + random
    return binascii.b2a_base64(body + _tag(body, key), newline=False).decode("ascii")


def decode(text: bytes | str, keys: Mapping[int, bytes]) -> Ufrag:
    """Read a ufrag that one of ``keys`` made, by id. The tag is compared in constant time.

    Raises UfragError.
    """
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    if len(raw) != UFRAG_CHARS:
        raise UfragError(Refusal.SHAPE)
    try:
        whole = binascii.a2b_base64(raw, strict_mode=True)
    except binascii.Error:
        raise UfragError(Refusal.SHAPE) from None
    if len(whole) != _BODY_BYTES + _TAG_BYTES:
        raise UfragError(Refusal.SHAPE)
    if whole[0] >> 4 != VERSION:
        raise UfragError(Refusal.VERSION)
    key_id = whole[0] & 15
    key = keys.get(key_id)
    if key is None:
        raise UfragError(Refusal.KEY)
    body = whole[:_BODY_BYTES]
    if not hmac.compare_digest(_tag(body, key), whole[_BODY_BYTES:]):
        raise UfragError(Refusal.TAG)
    return Ufrag(int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:6], "big"), body[6:], key_id)


def _tag(body: bytes, key: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_TAG_BYTES, key=key, person=_PERSON).digest()
