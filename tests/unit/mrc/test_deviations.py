"""Each way to depart from the table is found, named, and found alone."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrSegmentRouting
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from testbed.mrc.wire.anatomy import Anatomy, PacketReader, computed_checksum
from testbed.mrc.wire.capturefile import Captured
from testbed.mrc.wire.deviations import Deviation, Judge
from testbed.mrc.wire.layers import (
    AETH,
    BTH,
    CC_STATE,
    EETH,
    ERTH,
    ICRC,
    NETH,
    PETH,
    RETH,
    SETH,
    TABLE,
    TSETH,
    traffic_class,
)
from tests.unit.mrc.crafting import OPCODES, example, example_bytes

READER, JUDGE = PacketReader(TABLE), Judge(TABLE)
RAW, ETHERNET, COOKED, COOKED_2, NULL = 101, 1, 113, 276, 0


def read(data: bytes, link_type: int = RAW, *, captured: int | None = None) -> Anatomy | None:
    return READER.read(Captured(1, 0, link_type, len(data), data[:captured]))


def deviations(data: bytes, *, captured: int | None = None) -> list[Deviation]:
    found = read(data, captured=captured)
    assert found is not None
    return JUDGE.deviations(found)


def with_bit(packet: Packet, header: str, field: str) -> Packet:
    """The packet with the lowest bit of a field turned, its ICRC right."""
    value = getattr(packet[header], field)
    setattr(packet[header], field, (value or 0) ^ 1)
    return packet


def followed(layer: Packet, by: Packet) -> None:
    layer.remove_payload()
    layer.add_payload(by)


def padded_alone(packet: Packet) -> None:
    followed(packet[RETH], ICRC())
    packet[BTH].pad = 3


Change = Callable[[Packet], object]
WRONG: list[tuple[str, str, Change, str, str]] = [
    # opcode, field that deviates, what is done, found, expected
    ("WRITE_ONLY", "udp.destination_port", lambda p: setattr(p[UDP], "dport", 4971), "4971", "4791"),
    ("WRITE_ONLY", "udp.destination_port", lambda p: setattr(p[UDP], "dport", 9), "9", "4791"),
    ("WRITE_ONLY", "outer.dscp", lambda p: setattr(p, "tc", 1 << 2), "1", "one of 8 NO_TRIM, 10 TRIMMABLE, "),
    ("SACK", "outer.dscp", lambda p: setattr(p, "tc", traffic_class("TRIMMABLE")), "10 TRIMMABLE", "46 CONTROL"),
    ("WRITE_ONLY", "outer.dscp", lambda p: setattr(p, "tc", traffic_class("CONTROL")), "46 CONTROL", "a role of data"),
    ("WRITE_ONLY", "BTH.rtx", lambda p: setattr(p[BTH], "rtx", 1), "1 with DSCP 10 TRIMMABLE", "0"),
    ("WRITE_ONLY", "ev.flow_label", lambda p: setattr(p, "fl", 7), "outer 0x00007, inner 0x00123", "the same in both"),
    ("WRITE_ONLY", "udp.checksum", lambda p: setattr(p[UDP], "chksum", 0xBAD), "0x0bad", "0 or 0x"),
    ("WRITE_ONLY", "outer.payload_length", lambda p: setattr(p, "plen", 90), "90", "as the IPv6 header inside says"),
    ("WRITE_ONLY", "BTH.m", lambda p: setattr(p[BTH], "m", 0), "0", "1"),
    ("WRITE_ONLY", "BTH.tver", lambda p: setattr(p[BTH], "tver", 3), "3", "0"),
    ("WRITE_ONLY", "BTH.inv_res", lambda p: setattr(p[BTH], "inv_res", 8), "8", "0"),
    ("SACK", "BTH.r", lambda p: setattr(p[BTH], "r", 1), "1", "0"),
    ("SACK", "BTH.pad", lambda p: setattr(p[BTH], "pad", 1), "1", "0 where there is no payload"),
    ("WRITE_ONLY", "BTH.pad", lambda p: setattr(p[BTH], "pad", 0), "0, 23 bytes before the ICRC", "a whole word"),
    ("WRITE_ONLY", "BTH.pad", padded_alone, "3", "at most 0"),
    ("WRITE_FIRST", "TSETH.ftype", lambda p: setattr(p[TSETH], "ftype", 2), "0x2", "one of 0x1 TIMESTAMP"),
    ("WRITE_FIRST", "TSETH.reserved", lambda p: setattr(p[TSETH], "reserved", 5), "0x5", "0"),
    ("ACK", "AETH.syndrome", lambda p: setattr(p[AETH], "syndrome", 0x40), "0x40", "one of 0x1f ACK"),
    ("SACK", "SETH.m", lambda p: setattr(p[SETH], "m", 3), "0x3", "one of 0x0 NONE"),
    ("SACK", "SETH.cc_type", lambda p: setattr(p[SETH], "cc_type", 2), "0x2", "one of 0x1 NSCC"),
    ("SACK", "CC_STATE.reserved", lambda p: setattr(p[CC_STATE], "reserved", 1), "0x1", "0"),
    ("NACK", "NETH.reason", lambda p: setattr(p[NETH], "reason", 0x7F), "0x7f", "one of 0x1 TRIMMED"),
    ("NACK", "NETH.cc_type", lambda p: setattr(p[NETH], "cc_type", 1), "0x1", "one of 0x2 NACK"),
    ("PROBE", "PETH.reserved_3", lambda p: setattr(p[PETH], "reserved_3", 0x400), "0x400", "0"),
    ("ENDPOINT_REQUEST", "ERTH.op", lambda p: setattr(p[ERTH], "op", 3), "0x3", "one of 0x0 PORT_STATUS_UPDATE"),
    ("ENDPOINT_RESPONSE", "EETH.reserved_2", lambda p: setattr(p[EETH], "reserved_2", 1 << 191), "0x8000", "0"),
    ("WRITE_ONLY", "RETH.dma_length", lambda p: setattr(p[RETH], "dma_length", 1), "1", "23, the payload of"),
    ("WRITE_LAST", "RETH.dma_length", lambda p: setattr(p[RETH], "dma_length", 23), "23", "more than the 23 bytes"),
    ("WRITE_MIDDLE", "BTH.pad", lambda p: setattr(p[Raw], "load", b"abc"), "1", "0 in a WRITE_MIDDLE"),
    ("WRITE_LAST", "udp.length", lambda p: followed(p[RETH], ICRC()), "no payload", "a part of the message"),
    ("SACK", "udp.length", lambda p: followed(p[CC_STATE], Raw(bytes(8)) / ICRC()), "8 bytes after", "none"),
    ("WRITE_ONLY", "ICRC", lambda p: setattr(p[ICRC], "crc", 1), "01000000", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("opcode", "field", "change", "found", "expected"), WRONG, ids=[f"{o}-{f}-{n}" for o, f, _, n, _ in WRONG]
)
def test_one_thing_wrong_is_one_deviation(opcode: str, field: str, change: Change, found: str, expected: str) -> None:
    made = example(opcode)
    assert deviations(bytes(made)) == []
    change(made)
    told = deviations(bytes(made))
    assert [each.field for each in told] == [field]
    assert told[0].found.startswith(found)
    assert expected in told[0].expected


@pytest.mark.parametrize(
    ("header", "field", "opcode"),
    [
        (header.name, field.name, opcode.name)
        for opcode in TABLE.opcodes.values()
        for header in (TABLE.headers[name] for name in opcode.headers)
        for field in header.fields.values()
        if field.reserved
    ],
)
def test_every_reserved_field_counts(header: str, field: str, opcode: str) -> None:
    told = deviations(bytes(with_bit(example(opcode), header, field)))
    assert told == [Deviation(f"{header}.{field}", "0x1", "0")]


def test_a_flow_label_that_holds_more_than_16_bits_of_the_ev_deviates() -> None:
    made = example("ACK")
    made.fl = made.payload.fl = 0x10123
    assert deviations(bytes(made)) == [Deviation("ev.flow_label", "0x10123", "16 bits of the EV below four zeros")]


def test_where_the_label_holds_20_bits_they_agree_with_the_source_port() -> None:
    chosen = TABLE.choosing(ev_flow_label="low20", ev_flow_label_in="inner")
    found = read(bytes(example("ACK")))
    assert found is not None
    assert [each.field for each in Judge(chosen).deviations(found)] == ["ev.source_port"]
    made = example("ACK")
    made.payload.fl = 0x50B0A
    found = read(bytes(made))
    assert found is not None
    assert Judge(chosen).deviations(found) == []
    assert found.ev(chosen) == 0x50B0A


def test_an_unknown_opcode_deviates_and_the_icrc_is_still_checked() -> None:
    made = example("ACK")
    made[BTH].opcode = 0x42
    assert [(each.field, each.found) for each in deviations(bytes(made))] == [("BTH.opcode", "0x42")]
    made[ICRC].crc = 0
    assert [each.field for each in deviations(bytes(made))] == ["BTH.opcode", "ICRC"]


def test_a_right_checksum_is_no_deviation() -> None:
    made = example("WRITE_ONLY")
    made[UDP].chksum = None
    data = bytes(made)
    assert data[86:88] != bytes(2)
    assert deviations(data) == []
    found = read(data)
    assert found is not None
    assert computed_checksum(found) == int.from_bytes(data[86:88])


def test_without_encapsulation_only_mrc_opcodes_are_taken_for_mrc() -> None:
    inner = bytes(example("ACK"))[40:]
    assert [each.field for each in deviations(inner)] == ["encapsulation", "outer.dscp"]
    rocev2 = bytearray(inner)
    rocev2[48] = 0x0A
    assert read(bytes(rocev2)) is None


def test_headers_that_do_not_fit_their_length_deviate() -> None:
    made = example("SACK")
    made[UDP].len = 30
    assert "udp.length" in [each.field for each in deviations(bytes(made))]
    made[UDP].len = 400
    told = deviations(bytes(made))
    assert [each.field for each in told if "length" in each.field] == ["inner.payload_length", "udp.length"]


def test_a_packet_cut_by_the_capture_is_judged_as_far_as_it_goes() -> None:
    made = example("WRITE_ONLY")
    made[ICRC].crc = 1
    made[TSETH].reserved = 1
    assert [each.field for each in deviations(bytes(made), captured=124)] == ["TSETH.reserved"]


@pytest.mark.parametrize("role", ["TRIMMED", "TRIMMED_LASTHOP"])
def test_of_a_trimmed_packet_neither_lengths_nor_icrc_are_judged(role: str) -> None:
    made = example("WRITE_FIRST")
    made.tc = traffic_class(role)
    cut = bytes(made)[:-12]
    assert deviations(cut) == []
    assert [each.field for each in deviations(bytes(example("WRITE_FIRST"))[:-12])] == ["udp.length"]


@pytest.mark.parametrize(
    ("link_type", "before"),
    [
        (ETHERNET, bytes(12) + b"\x86\xdd"),
        (ETHERNET, bytes(Ether(type=0x8100) / Dot1Q(vlan=5, type=0x86DD))),
        (ETHERNET, bytes(Ether(type=0x88A8) / Dot1Q(vlan=5, type=0x8100) / Dot1Q(vlan=6, type=0x86DD))),
        (COOKED, bytes(14) + b"\x86\xdd"),
        (COOKED_2, b"\x86\xdd" + bytes(18)),
        (NULL, struct.pack("<I", 30)),
        (RAW, b""),
        (229, b""),
    ],
)
def test_every_link_type_leads_to_the_same_packet(link_type: int, before: bytes) -> None:
    data = bytes(example("NACK"))
    found, plain = read(before + data, link_type), read(data)
    assert found is not None
    assert plain is not None
    assert found.headers == plain.headers
    assert JUDGE.deviations(found) == []


def test_a_segment_routing_header_is_no_deviation() -> None:
    made = example("WRITE_ONLY")
    inner = made.payload
    outer = IPv6(src=made.src, dst=made.dst, tc=made.tc, fl=made.fl)
    data = bytes(outer / IPv6ExtHdrSegmentRouting(addresses=[made.dst]) / inner)
    assert deviations(data) == []


@pytest.mark.parametrize(
    "data",
    [
        bytes(IPv6() / UDP(dport=9) / Raw(b"probe")),
        bytes(IPv6() / IPv6() / UDP(sport=4791, dport=9) / Raw(b"\xca" * 60)),
        bytes(IPv6() / IPv6() / IPv6ExtHdrFragment(offset=4) / UDP(dport=4791) / Raw(b"\xca" * 60)),
        bytes(example("ACK"))[:88],
        bytes(MPLS() / IPv6()),
        b"",
    ],
    ids=["probe", "other port", "fragment", "no BTH", "MPLS", "nothing"],
)
def test_other_packets_are_not_mrc(data: bytes) -> None:
    assert read(data) is None


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(OPCODES), st.randoms(use_true_random=False), st.sampled_from([RAW, ETHERNET, COOKED, 276, 0, 7]))
def test_no_damage_raises(opcode: str, chance: random.Random, link_type: int) -> None:
    data = bytearray(bytes(14 * (link_type == ETHERNET)) + example_bytes(opcode))
    if link_type == ETHERNET:
        data[12:14] = b"\x86\xdd"
    for _ in range(chance.randrange(6)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    length = chance.randrange(len(data) + 1)
    found = READER.read(Captured(1, 0, link_type, chance.choice([length, len(data), 0]), bytes(data[:length])))
    if found is not None:
        JUDGE.deviations(found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_to_the_port_are_judged(data: bytes) -> None:
    made = IPv6(src="::1", dst="::2") / IPv6(src="::1", dst="::2") / UDP(dport=4791, chksum=0) / Raw(data)
    found = read(bytes(made))
    assert (found is None) == (not data)
    if found is not None:
        assert JUDGE.deviations(found)
