"""STUN as far as a relay reads it."""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.voice import stun
from testbed.voice.stun import Kind

#: RFC 5769 section 2.1: a binding request with USERNAME "evtj:h6vY".
RFC_5769_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
REQUEST = stun.binding_request("A" * 32, "peer", "password", bytes(12))


def test_the_ufrag_of_the_request_in_rfc_5769() -> None:
    assert stun.server_ufrag(RFC_5769_REQUEST) == b"evtj"


def test_a_built_request_is_one() -> None:
    assert stun.server_ufrag(REQUEST) == b"A" * 32
    pairs = dict(stun.attributes(REQUEST))
    covered = REQUEST[: -8 - 24]
    with_length = covered[:2] + struct.pack(">H", len(covered) + 24 - 20) + covered[4:]
    assert pairs[stun.MESSAGE_INTEGRITY] == hmac.new(b"password", with_length, hashlib.sha1).digest()
    assert pairs[stun.FINGERPRINT] == struct.pack(">I", zlib.crc32(REQUEST[:-8]) ^ 0x5354554E)


@pytest.mark.parametrize(
    ("first", "kind"),
    [(0, Kind.STUN), (3, Kind.STUN), (4, Kind.OTHER), (15, Kind.OTHER), (16, Kind.ZRTP), (19, Kind.ZRTP),
     (20, Kind.DTLS), (63, Kind.DTLS), (64, Kind.TURN), (79, Kind.TURN), (80, Kind.OTHER), (127, Kind.OTHER),
     (128, Kind.RTP), (191, Kind.RTP), (192, Kind.OTHER), (0xF5, Kind.OTHER), (0xF6, Kind.OTHER), (255, Kind.OTHER)],
)  # fmt: skip
def test_kinds_are_those_of_rfc_7983(first: int, kind: Kind) -> None:
    assert stun.KINDS[first] == kind


@pytest.mark.parametrize(
    ("what", "datagram"),
    [
        ("cut in its header", REQUEST[:19]),
        ("cut later", REQUEST[:-1]),
        ("longer than it says", REQUEST + b"\0"),
        ("another cookie", REQUEST[:4] + b"\x21\x12\xa4\x43" + REQUEST[8:]),
        ("the upper bits set", b"\x80" + REQUEST[1:]),
        ("an attribute longer than all", REQUEST[:22] + b"\xff\xff" + REQUEST[24:]),
        ("no colon", stun.message(1, [(stun.USERNAME, b"nocolon")])),
        ("a long name", stun.message(1, [(stun.USERNAME, b"a:" + b"b" * 600)])),
        ("many attributes", stun.message(1, [(0x8000 + at, b"") for at in range(70)])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_requests_are_refused(what: str, datagram: bytes) -> None:
    with pytest.raises(stun.StunError):
        stun.server_ufrag(datagram)


def test_responses_have_no_ufrag() -> None:
    assert stun.server_ufrag(stun.message(stun.BINDING_SUCCESS, [(stun.XOR_MAPPED_ADDRESS, bytes(8))])) is None
    assert stun.server_ufrag(stun.message(stun.BINDING_REQUEST, [])) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for datagram in (data, REQUEST[:20] + data, REQUEST[:2] + len(data).to_bytes(2) + REQUEST[4:20] + data):
        try:
            found = stun.server_ufrag(datagram)
        except stun.StunError:
            continue
        assert found is None or found in datagram


@given(st.data())
def test_a_changed_request_is_read_or_refused(data: st.DataObject) -> None:
    changed = bytearray(REQUEST)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        stun.server_ufrag(bytes(changed))
    except stun.StunError:
        return
