"""The ICRC against a plain implementation and against scapy's RoCE, and what it detects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.mrc import rows as r
from testbed.mrc.rows import Flag
from testbed.mrc.wire.icrc import crc32, icrc
from tests.unit.mrc.wire.pair import Pair, plain_crc32, plain_icrc, rows_of


@given(st.binary(min_size=100, max_size=300))
def test_it_is_that_of_the_plain_implementation(packet: bytes) -> None:
    assert icrc(packet).to_bytes(4, "little") == plain_icrc(packet)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_crc32_goes_on_from_where_it_was(one: bytes, other: bytes) -> None:
    assert crc32(other, crc32(one)) == plain_crc32(one + other)


def test_it_is_what_scapy_computes_for_rocev2() -> None:
    roce = pytest.importorskip("scapy.contrib.roce")
    inet, inet6 = (pytest.importorskip(f"scapy.layers.{name}") for name in ("inet", "inet6"))
    (packet,) = Pair().writes({"opcode": 0xCA, "length": 32, "psn": 77})
    inner = inet6.IPv6(packet[40:])
    # Whichever of the protocols on this port scapy was told of last: here it is RoCE.
    udp = inner[inet.UDP]
    udp.remove_payload()
    udp.add_payload(roce.BTH(packet[40 + 40 + 8 :]))
    bth = inner[roce.BTH]
    assert bth.opcode == 0xCA
    bth.icrc = None
    assert bytes(inner)[-4:] == packet[-4:]


#: Bits that may change and nothing else with them, by first bit and count: nobody looks at them.
UNSEEN = {
    "outer flow label": (12, 20),
    "outer hop limit, addresses": (7 * 8, 33 * 8),
    "inner traffic class": (40 * 8 + 4, 8),
    "inner hop limit": (47 * 8, 8),
    "UDP checksum": (86 * 8, 16),
    "BTH after P_Key": (92 * 8, 8),
}
#: Bits that the ICRC does not cover and that mean something: what they change is in the row.
ECN_AND_DSCP = (4, 8)
EV = (42 * 8, 16)
UNUSED_LABEL = (40 * 8 + 12, 4)


def _bits(*ranges: tuple[int, int]) -> set[int]:
    return {bit for first, count in ranges for bit in range(first, first + count)}


def _flipped(packet: bytes, bit: int) -> bytes:
    octets = bytearray(packet)
    octets[bit // 8] ^= 0x80 >> bit % 8
    return bytes(octets)


def _packets() -> dict[str, bytes]:
    pair = Pair()
    return {
        "full write": pair.full(1)[0],
        "odd write": pair.writes({"opcode": 0xCB, "length": 13, "flags": Flag.TS | Flag.A})[0],
        "sack": pair.controls(pair.control_rows(r.SACK_OUT, {"bitmap": 1}))[0],
        "ack": pair.controls(pair.control_rows(r.ACK_OUT, {"msn": 1}))[0],
    }


@pytest.mark.parametrize("kind", _packets())
def test_every_single_changed_bit_is_detected_but_the_masked_ones(kind: str) -> None:
    packet, pair = _packets()[kind], Pair()
    usual = [rows.tobytes() for rows in rows_of(pair.receive([packet]))]
    passed = set()
    for bit in range(8 * len(packet)):
        received = pair.receive([_flipped(packet, bit)])
        if not received.dropped:
            passed.add(bit)
            if bit not in _bits(ECN_AND_DSCP, EV):
                assert [rows.tobytes() for rows in rows_of(received)] == usual, bit
    assert passed == _bits(ECN_AND_DSCP, EV, UNUSED_LABEL, *UNSEEN.values())


def test_one_bad_packet_among_good_ones_is_the_only_one_lost() -> None:
    pair = Pair()
    packets = pair.full(9)
    packets[4] = _flipped(packets[4], 8 * 200)
    received = pair.receive(packets, first=3)
    assert received.dropped == {"bad_icrc": 1}
    assert received.writes["psn"].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert received.writes["frame"].tolist() == [3, 4, 5, 6, 8, 9, 10, 11]
    assert np.all(received.writes["length"] == 256)
