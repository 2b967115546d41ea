"""ICE-lite (RFC 8445 section 2.5): connectivity checks are answered, none are sent. No I/O.

The answer to a check names the client's address, which came in the relay's header. Extensions such as Google's
GOOG_PING are never announced: a check without a ufrag would find no way through a relay.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from testbed.voice import stun
from testbed.voice.addresses import Address

BAD_REQUEST: Final = 400
UNAUTHENTICATED: Final = 401
FORBIDDEN: Final = 403
UNKNOWN: Final = 420
ROLE_CONFLICT: Final = 487
#: Attributes below 0x8000 that must be understood (RFC 8489 section 14), and are; REALM and NONCE have no meaning here.
_UNDERSTOOD: Final = frozenset(
    {stun.USERNAME, stun.MESSAGE_INTEGRITY, 0x0014, 0x0015, 0x001C, stun.PRIORITY, stun.USE_CANDIDATE}
)
_MOST_UNKNOWN: Final = 8
_INTEGRITY_BYTES: Final = 20


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a session's checks prove: the ufrag and the password of its answer."""

    ufrag: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.ufrag})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a check.

    Attributes:
        response: to be sent, unless empty; never longer than the request.
        valid: the client has proven that it has the password.
        nominated: it has said that this pair of addresses is to be used.
        error: the code of the response, 0 for success.
    """

    response: bytes
    valid: bool = False
    nominated: bool = False
    error: int = 0


@dataclass(slots=True)
class _Read:
    """A request, taken apart."""

    username: bytes = b""
    integrity_at: int = 0
    nominated: bool = False
    controlled: bool = False
    unknown: tuple[int, ...] = ()


def check(request: bytes, client: Address, mine: Credentials, *, forbidden: bool = False) -> Verdict:
    """Judge a binding request, and make the answer.

    Args:
        request: a datagram whose first byte is STUN's.
        client: where it came from, as the relay says.
        mine: of the session that its ufrag names.
        forbidden: the session is over; consent is revoked (RFC 7675 section 5.2).

    Raises StunError where it is no request that may be answered.
    """
    if stun.message_type(request) != stun.BINDING_REQUEST or not stun.has_fingerprint(request):
        raise stun.StunError("no binding request with a FINGERPRINT that fits")
    read = _read(request)
    transaction = request[8:20]
    if not read.integrity_at or not read.username:
        return _error(request, BAD_REQUEST, transaction)
    if read.username.partition(b":")[0] != mine.ufrag.encode():
        return _error(request, UNAUTHENTICATED, transaction)
    if not stun.has_integrity(request, read.integrity_at, mine.password):
        return _error(request, UNAUTHENTICATED, transaction)
    if read.unknown:
        listed = struct.pack(f">{len(read.unknown)}H", *read.unknown)
        return _error(request, UNKNOWN, transaction, mine.password, [(stun.UNKNOWN_ATTRIBUTES, listed)])
    if forbidden:
        return _error(request, FORBIDDEN, transaction, mine.password)
    if read.controlled:
        # RFC 8445 section 6.1.1: opposite a lite agent the full one controls; it is to change its role.
        return _error(request, ROLE_CONFLICT, transaction, mine.password)
    ip = client.ip[12:] if client.ip.startswith(bytes(10) + b"\xff\xff") else client.ip
    mapped = stun.xor_address(ip, client.port, transaction)
    response = stun.message(stun.BINDING_SUCCESS, [(stun.XOR_MAPPED_ADDRESS, mapped)], transaction, mine.password)
    return Verdict(response if len(response) <= len(request) else b"", True, read.nominated)


def _read(request: bytes) -> _Read:
    """What a request says. What follows MESSAGE-INTEGRITY is not covered by it, and is passed over."""
    read = _Read()
    at = stun.HEADER_BYTES
    unknown: list[int] = []
    for kind, value in stun.attributes(request):
        if kind == stun.MESSAGE_INTEGRITY:
            if len(value) == _INTEGRITY_BYTES:
                read.integrity_at = at
            break
        if kind == stun.USERNAME and len(value) <= stun.MOST_USERNAME:
            read.username = value
        elif kind == stun.USE_CANDIDATE:
            read.nominated = True
        elif kind == stun.ICE_CONTROLLED:
            read.controlled = True
        elif kind < 0x8000 and kind not in _UNDERSTOOD and len(unknown) < _MOST_UNKNOWN:
            unknown.append(kind)
        at += 4 + (len(value) + 3 & ~3)
    read.unknown = tuple(unknown)
    return read


def _error(
    request: bytes, code: int, transaction: bytes, password: str = "", more: list[tuple[int, bytes]] | None = None
) -> Verdict:
    pairs = [(stun.ERROR_CODE, stun.error_code(code)), *(more or [])]
    response = stun.message(stun.BINDING_ERROR, pairs, transaction, password)
    return Verdict(response if len(response) <= len(request) else b"", error=code)
