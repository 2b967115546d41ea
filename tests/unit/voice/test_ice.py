"""ICE-lite: which checks are answered, and how."""

from __future__ import annotations

import struct
import zlib

import pytest
from aioice import stun as reference
from hypothesis import given
from hypothesis import strategies as st

from testbed.voice import stun
from testbed.voice.addresses import Address
from testbed.voice.transceiver import ice
from testbed.voice.transceiver.ice import Credentials

MINE = Credentials("A" * 32, "p" * 32)
CLIENT = Address.of("192.0.2.7", 40000)
CLIENT6 = Address.of("2001:db8::7", 40000)
NAME = (stun.USERNAME, f"{MINE.ufrag}:peer".encode())
PRIORITY = (stun.PRIORITY, struct.pack(">I", 1))
NOMINATED = (stun.USE_CANDIDATE, b"")
CONTROLLING = (stun.ICE_CONTROLLING, bytes(8))


def request(*pairs: tuple[int, bytes], password: str = MINE.password) -> bytes:
    return stun.message(stun.BINDING_REQUEST, [NAME, PRIORITY, *pairs], password=password)


def proven_answer(data: bytes) -> reference.Message:
    """As another implementation reads it, which checks that we have the password."""
    answer = reference.parse_message(data)
    assert answer.check_message_integrity(MINE.password.encode())
    return answer


@pytest.mark.parametrize("client", [CLIENT, CLIENT6], ids=str)
@pytest.mark.parametrize("nominated", [True, False])
def test_a_good_check_is_answered_as_another_implementation_reads_it(client: Address, nominated: bool) -> None:
    asked = request(CONTROLLING, *([NOMINATED] if nominated else []))
    verdict = ice.check(asked, client, MINE)
    assert (verdict.valid, verdict.nominated, verdict.error) == (True, nominated, 0)
    answer = proven_answer(verdict.response)
    assert answer.message_class == reference.Class.RESPONSE
    assert answer.transaction_id == asked[8:20]
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == (str(client).rpartition(":")[0].strip("[]"), 40000)
    assert len(verdict.response) <= len(asked)


def test_a_check_of_another_implementation_is_taken() -> None:
    asked = reference.Message(reference.Method.BINDING, reference.Class.REQUEST)
    asked.attributes["USERNAME"] = f"{MINE.ufrag}:peer"
    asked.attributes["PRIORITY"] = 1
    asked.attributes["ICE-CONTROLLING"] = 5
    asked.attributes["USE-CANDIDATE"] = None
    asked.add_message_integrity(MINE.password.encode())
    asked.add_fingerprint()
    assert ice.check(bytes(asked), CLIENT, MINE).nominated


@pytest.mark.parametrize(
    ("asked", "code", "proven"),
    [
        (request(password="q" * 32), ice.UNAUTHENTICATED, False),
        (request(password=""), ice.BAD_REQUEST, False),
        (stun.message(1, [PRIORITY, (0x8022, b"x" * 40)], password=MINE.password), ice.BAD_REQUEST, False),
        (
            stun.message(1, [(stun.USERNAME, b"B" * 32 + b":peer")], password=MINE.password),
            ice.UNAUTHENTICATED,
            False,
        ),
        (request((0x7FFE, b"new")), ice.UNKNOWN, True),
        (request((stun.ICE_CONTROLLED, bytes(8))), ice.ROLE_CONFLICT, True),
    ],
    ids=["password", "no-integrity", "no-username", "another-ufrag", "unknown-attribute", "controlled"],
)
def test_other_checks_are_refused(asked: bytes, code: int, proven: bool) -> None:
    verdict = ice.check(asked, CLIENT, MINE)
    assert (verdict.valid, verdict.nominated, verdict.error) == (False, False, code)
    answer = proven_answer(verdict.response) if proven else reference.parse_message(verdict.response)
    assert answer.attributes["ERROR-CODE"][0] == code
    assert ("MESSAGE-INTEGRITY" in answer.attributes) == proven
    assert len(verdict.response) <= len(asked)


def test_a_session_that_is_over_revokes_consent_and_proves_it() -> None:
    verdict = ice.check(request(CONTROLLING), CLIENT, MINE, forbidden=True)
    answer = proven_answer(verdict.response)
    assert answer.attributes["ERROR-CODE"][0] == ice.FORBIDDEN
    assert not verdict.valid
    # Only who has the password is told.
    assert ice.check(request(password="q" * 32), CLIENT, MINE, forbidden=True).error == ice.UNAUTHENTICATED


@pytest.mark.parametrize(
    "data",
    [
        request()[:-8],
        request()[:-1] + bytes([request()[-1] ^ 1]),
        stun.message(stun.BINDING_SUCCESS, [NAME], password=MINE.password),
        stun.message(0x0011, [NAME], password=MINE.password),
        b"",
        b"\x00",
    ],
    ids=["no-fingerprint", "wrong-fingerprint", "response", "indication", "empty", "short"],
)
def test_what_is_no_request_is_not_answered(data: bytes) -> None:
    with pytest.raises(stun.StunError):
        ice.check(data, CLIENT, MINE)


def test_what_follows_the_integrity_is_passed_over() -> None:
    asked = request()
    body = asked[20:-8]
    added = body + struct.pack(">HH", stun.USE_CANDIDATE, 0)
    whole = stun.message(1, [], asked[8:20])[:20]
    for content, nominated in ((body, False), (added, False)):
        length = struct.pack(">H", len(content) + 8)
        head = whole[:2] + length + whole[4:]
        made = head + content
        made += struct.pack(">HHI", stun.FINGERPRINT, 4, zlib.crc32(made) ^ 0x5354554E)
        assert ice.check(made, CLIENT, MINE).nominated is nominated


def test_a_check_with_a_large_extension_is_taken() -> None:
    # A handshake may ride in checks.
    assert ice.check(request((0xC070, bytes(900))), CLIENT, MINE).valid


def test_no_answer_is_longer_than_what_it_answers() -> None:
    bare = stun.message(stun.BINDING_REQUEST, [])
    assert ice.check(bare, CLIENT, MINE) == ice.Verdict(b"", error=ice.BAD_REQUEST)


def test_no_password_is_shown() -> None:
    assert MINE.password not in repr(MINE)


@given(st.data())
def test_no_changed_check_is_taken(data: st.DataObject) -> None:
    asked = bytearray(request(CONTROLLING, NOMINATED))
    place = data.draw(st.integers(0, len(asked) - 1))
    asked[place] ^= data.draw(st.integers(1, 255))
    _never_valid(bytes(asked))


@given(st.binary(max_size=300))
def test_no_made_up_check_is_taken(data: bytes) -> None:
    head = struct.pack(">HHI", 1, len(data) & ~3, stun.MAGIC_COOKIE) + bytes(12)
    fingerprinted = stun.message(1, [NAME, (stun.MESSAGE_INTEGRITY, data[:20]), (0x8022, data)])
    for each in (data, head + data, fingerprinted):
        _never_valid(each)


def _never_valid(data: bytes) -> None:
    try:
        verdict = ice.check(data, CLIENT, MINE)
    except stun.StunError:
        return
    assert not verdict.valid
    assert len(verdict.response) <= len(data)
