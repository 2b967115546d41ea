"""The ufrag: what it says, and that nobody without the key can say it."""

from __future__ import annotations

import base64
import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.voice.ufrag import (
    MOST_CLUSTER,
    MOST_TRANSCEIVER,
    UFRAG_CHARS,
    Refusal,
    Ufrag,
    UfragError,
    decode,
    encode,
)

ICE_CHARS = set(string.ascii_letters + string.digits + "+/")
KEY = bytes(range(32))

clusters = st.integers(0, MOST_CLUSTER)
transceivers = st.integers(0, MOST_TRANSCEIVER)
key_ids = st.integers(0, 15)
keys = st.binary(min_size=16, max_size=32)


def refusal(text: bytes | str, keys: dict[int, bytes]) -> Refusal:
    with pytest.raises(UfragError) as caught:
        decode(text, keys)
    return caught.value.refusal


def test_a_ufrag_by_hand() -> None:
    # Version 1, key 3; cluster 0x0102; transceiver 0x030405; random "secret".
    body = bytes([0x13, 1, 2, 3, 4, 5]) + b"secret"
    tag = hashlib.blake2s(body, key=KEY, digest_size=12, person=b"ufrag").digest()
    by_hand = base64.b64encode(body + tag).decode()
    assert by_hand == "EwECAwQFc2VjcmV0+Rt0YYGMXLaSYCbx"
    assert encode(0x0102, 0x030405, 3, KEY, b"secret") == by_hand
    assert decode(by_hand, {3: KEY}) == Ufrag(0x0102, 0x030405, b"secret", 3)


@given(clusters, transceivers, key_ids, keys)
def test_what_goes_in_comes_out(cluster: int, transceiver: int, key_id: int, key: bytes) -> None:
    text = encode(cluster, transceiver, key_id, key)
    assert len(text) == UFRAG_CHARS <= 32
    assert set(text) <= ICE_CHARS
    read = decode(text.encode(), {key_id: key})
    assert (read.cluster, read.transceiver, read.key) == (cluster, transceiver, key_id)
    assert len(read.random) * 8 >= 24


def test_no_two_are_alike() -> None:
    assert len({encode(1, 7, 0, KEY) for _ in range(1000)}) == 1000


@given(clusters, transceivers, st.integers(0, 191))
def test_no_bit_can_be_changed(cluster: int, transceiver: int, bit: int) -> None:
    whole = bytearray(base64.b64decode(encode(cluster, transceiver, 5, KEY)))
    whole[bit // 8] ^= 0x80 >> bit % 8
    found = refusal(base64.b64encode(whole), {5: KEY})
    assert found is (Refusal.VERSION if bit < 4 else Refusal.KEY if bit < 8 else Refusal.TAG)


@given(
    st.one_of(st.binary(max_size=64), st.text(max_size=40), st.binary(min_size=24, max_size=24).map(base64.b64encode))
)
def test_nothing_made_up_is_taken(text: bytes | str) -> None:
    refusal(text, dict.fromkeys(range(16), KEY))


def test_two_keys_are_valid_at_once() -> None:
    old, new = encode(1, 2, 1, b"o" * 32), encode(1, 2, 2, b"n" * 32)
    both = {2: b"n" * 32, 1: b"o" * 32}
    assert decode(old, both).key == 1
    assert decode(new, both).key == 2
    assert refusal(old, {2: b"n" * 32}) is Refusal.KEY
    assert refusal(old, {1: b"n" * 32}) is Refusal.TAG


@pytest.mark.parametrize(
    "text", ["", "short", "A" * 33, "A" * 31 + "=", "A" * 30 + "==", "é" * 32, "-" * 32, "A" * 31 + "\n"]
)
def test_other_shapes_are_told(text: str) -> None:
    assert refusal(text, {0: KEY}) is Refusal.SHAPE


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (1 << 16, 0, 0), (0, 1 << 24, 0), (0, 0, 16)])
def test_numbers_out_of_range_are_no_ufrag(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        encode(*numbers, KEY)
