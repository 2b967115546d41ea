"""The header between relay and transceiver: who may name a client, and for how long."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.voice.addresses import Address
from testbed.voice.framing import (
    HEADER_BYTES,
    INWARD,
    SKEW_S,
    VALID_S,
    Fault,
    FramingError,
    answer,
    open_inward,
    open_outward,
    seal,
    unframe,
)
from testbed.voice.keys import Keys

KEYS = Keys.make()
NOW = 1_800_000_000
CLIENT = Address.of("192.0.2.1", 40000)
RELAY = Address.of("2001:db8::1", 3480)

addresses = st.builds(Address.of, st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str), st.integers(0, 65535))


def fault(call: object, *arguments: object) -> Fault:
    with pytest.raises(FramingError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.fault


def test_a_header_by_hand() -> None:
    header = seal(CLIENT, 0x0102, 0x030405, KEYS, 0x6B49D200, steering=0x0A0B)
    assert len(header) == HEADER_BYTES
    ids = KEYS.seal.current[0] << 4 | KEYS.link.current[0]  # type: ignore[union-attr]
    assert header[:16] == bytes([0xF5, 0x10, ids, 1, 2, 3, 4, 5, 0x6B, 0x49, 0xD2, 0x00, 0x0A, 0x0B]) + (
        40000
    ).to_bytes(2)
    assert header[16:32] == ipaddress.ip_address("::ffff:192.0.2.1").packed


@given(addresses, st.integers(0, 65535), st.integers(0, (1 << 24) - 1), st.binary(max_size=200))
def test_a_client_goes_in_and_comes_back(client: Address, cluster: int, transceiver: int, payload: bytes) -> None:
    header = seal(client, cluster, transceiver, KEYS, NOW)
    taken = unframe(header + payload, KEYS.for_transceiver(), NOW)
    assert (taken.client, taken.payload) == (client, payload)
    back = open_outward(answer(taken.headers, KEYS.for_transceiver()), KEYS, NOW)
    assert (back.client, back.cluster, back.transceiver, back.more) == (client, cluster, transceiver, False)


def test_two_relays_each_find_what_they_sealed() -> None:
    first = seal(CLIENT, 4, 9, KEYS, NOW)
    second = seal(RELAY, 4, 9, KEYS, NOW, more=True, steering=open_inward(first, KEYS, NOW).steering)
    taken = unframe(second + first + b"payload", KEYS.for_transceiver(), NOW)
    assert (taken.client, taken.payload) == (CLIENT, b"payload")
    back = answer(taken.headers, KEYS.for_transceiver())
    assert open_outward(back[:HEADER_BYTES], KEYS, NOW).client == RELAY
    assert open_outward(back[HEADER_BYTES:], KEYS, NOW).client == CLIENT


@given(st.integers(0, HEADER_BYTES * 8 - 1), st.booleans())
def test_no_bit_can_be_changed(bit: int, outward: bool) -> None:
    header = seal(CLIENT, 4, 9, KEYS, NOW)
    whole = bytearray(answer(header, KEYS) if outward else header)
    whole[bit // 8] ^= 0x80 >> bit % 8
    fault(open_outward if outward else open_inward, bytes(whole), KEYS, NOW)


@given(st.binary(max_size=120))
def test_nothing_made_up_is_taken(data: bytes) -> None:
    fault(unframe, data, KEYS, NOW)
    fault(open_outward, data, KEYS, NOW)


def test_a_transceiver_cannot_name_a_client_of_its_own_choice() -> None:
    # It has the link keys and guesses at the seal.
    guessing = Keys(KEYS.ufrag, KEYS.link, Keys.make().seal)
    assert guessing.seal is not None
    assert KEYS.seal is not None
    made_up = seal(Address.of("198.51.100.66", 53), 4, 9, guessing, NOW)
    made_up = made_up[:2] + bytes([KEYS.seal.current[0] << 4 | made_up[2] & 15]) + made_up[3:40]
    returned = answer(made_up + bytes(8), KEYS)
    assert fault(open_outward, returned, KEYS, NOW) is Fault.TAG


def test_who_only_saw_a_header_cannot_answer_with_it() -> None:
    header = seal(CLIENT, 4, 9, KEYS, NOW)
    assert fault(open_outward, header, KEYS, NOW) is Fault.DIRECTION
    assert fault(open_outward, bytes([0xF6]) + header[1:], KEYS, NOW) is Fault.TAG
    assert header[0] == INWARD


@pytest.mark.parametrize(
    ("age", "good"), [(0, True), (VALID_S, True), (VALID_S + 1, False), (-SKEW_S, True), (-SKEW_S - 1, False)]
)
def test_a_header_is_good_for_a_while(age: int, good: bool) -> None:
    returned = answer(seal(CLIENT, 4, 9, KEYS, NOW), KEYS)
    if good:
        open_outward(returned, KEYS, NOW + age)
    else:
        assert fault(open_outward, returned, KEYS, NOW + age) is Fault.AGE


def test_the_seconds_may_wrap() -> None:
    open_outward(answer(seal(CLIENT, 4, 9, KEYS, 0xFFFFFFF0), KEYS), KEYS, 0x1_0000_0010)


def test_keys_rotate_under_calls() -> None:
    header = seal(CLIENT, 4, 9, KEYS, NOW)
    rotated = KEYS.added().switched()
    assert open_outward(answer(header, rotated), rotated, NOW).client == CLIENT
    assert fault(answer, header, rotated.added()) is Fault.KEY


def test_a_third_header_is_refused() -> None:
    nested = seal(RELAY, 4, 9, KEYS, NOW, more=True)
    assert fault(unframe, nested * 2 + seal(CLIENT, 4, 9, KEYS, NOW), KEYS, NOW) is Fault.DEPTH
