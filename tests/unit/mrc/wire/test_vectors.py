"""Packets worked out by hand from the table, against the encoders and the decoder.

All are from 2001:db8::11 to 2001:db8::22 with EV 0xABCD1234, to queue pair 0x123456 with PSN 0xABCDEF.
The bits of a byte are written from the most significant one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from testbed.mrc import rows as r
from testbed.mrc.rows import Dscp, Ecn, Flag
from testbed.mrc.wire.table import load
from tests.unit.mrc.wire.pair import Pair, plain_crc32, sealed

OUTER_ADDRESSES = "20010db8000000000000000000000011 5f000000010102020303040400000000"
INNER_ADDRESSES = "20010db8000000000000000000000011 20010db8000000000000000000000022"

METH = "0102 0304"  # rqmsn 16, msn 16
TSETH = "beef 0001"  # tx_timestamp 16; tsr 0, reserved 0 x 11, ftype 0001
RETH = "1122334455667788 99aabbcc 0000abcd"  # va 64, rkey 32, dma_length 32
WRITE = {
    "psn": 0xABCDEF,
    "rqmsn": 0x0102,
    "msn": 0x0304,
    "va": 0x1122334455667788,
    "rkey": 0x99AABBCC,
    "dma_length": 0xABCD,
}
DCID = "abcd 3456"  # spdcid: low 16 bits of our 0xFFABCD; dpdcid: those of 0x123456


def packet(first_word: str, body: str) -> bytes:
    """A whole packet; the lengths are counted, the rest is as written."""
    octets = bytes.fromhex(body)
    after_outer = (40 + 8 + len(octets) + 4).to_bytes(2, "big").hex()
    after_inner = (8 + len(octets) + 4).to_bytes(2, "big").hex()
    # next header 41 = 0x29 (IPv6), 17 = 0x11 (UDP); hop limit 64 = 0x40
    outer = f"{first_word} {after_outer} 29 40 {OUTER_ADDRESSES}"
    inner = f"6000abcd {after_inner} 11 40 {INNER_ADDRESSES}"
    # the EV's low half is the source port, 4791 = 0x12b7 the destination port; no checksum
    udp = f"1234 12b7 {after_inner} 0000"
    return sealed(bytes.fromhex(outer + inner + udp) + octets)


# Version 6; traffic class: DSCP in 6 bits, ECN in 2; flow label 20 bits: the EV's high half, 0x0abcd.
# TRIMMABLE 10 = 001010, ECT(0) 10: 00101010 = 2a; TRIMMABLE_RETRANSMIT 12: 00110010 = 32; CONTROL 46, 00: b8.
NEW, AGAIN, CONTROL = "62a0abcd", "6320abcd", "6b80abcd"

WRITES = {
    # m 1, se 1, pad 00, tver 0000: c0; a 0, r 0, rtx 0, ts 1, inv_res 0000: 10
    "WRITE_FIRST": (
        {"opcode": 0xC6, "flags": Flag.TS | Flag.SE, "stamp": 0xBEEF},
        b"data",
        packet(NEW, f"c6 c0 ffff 00 123456 10 abcdef {METH} {TSETH} {RETH} 64617461"),
    ),
    # m 1, se 0, pad 00: 80; rtx 1 and ts 1: 0011 0000 = 30
    "WRITE_MIDDLE": (
        {"opcode": 0xC7, "flags": Flag.TS | Flag.RTX, "stamp": 0xBEEF, "dscp": Dscp.TRIMMABLE_RETRANSMIT},
        b"more",
        packet(AGAIN, f"c7 80 ffff 00 123456 30 abcdef {METH} {TSETH} {RETH} 6d6f7265"),
    ),
    # 7 bytes and pad 01: 1 0 01 0000 = 90; r 1, no TSETH: 0100 0000 = 40
    "WRITE_LAST": (
        {"opcode": 0xC8, "flags": Flag.R},
        b"the end",
        packet(NEW, f"c8 90 ffff 00 123456 40 abcdef {METH} {RETH} 74686520656e64 00"),
    ),
    # 6 bytes and pad 10: 1 0 10 0000 = a0; a 1, ts 1: 1001 0000 = 90
    "WRITE_LAST_IMM": (
        {"opcode": 0xC9, "flags": Flag.A | Flag.TS, "stamp": 0xBEEF, "imm": 0xCAFEF00D},
        b"enough",
        packet(NEW, f"c9 a0 ffff 00 123456 90 abcdef {METH} {TSETH} {RETH} cafef00d 656e6f756768 0000"),
    ),
    # 5 bytes and pad 11: 1 0 11 0000 = b0; a 1: 80
    "WRITE_ONLY": (
        {"opcode": 0xCA, "flags": Flag.A},
        b"hello",
        packet(NEW, f"ca b0 ffff 00 123456 80 abcdef {METH} {RETH} 68656c6c6f 000000"),
    ),
    # no payload, no padding, no flags
    "WRITE_ONLY_IMM": (
        {"opcode": 0xCB, "imm": 0xCAFEF00D},
        b"",
        packet(NEW, f"cb 80 ffff 00 123456 00 abcdef {METH} {RETH} cafef00d"),
    ),
}

CONTROLS = {
    # syndrome 0x1f, msn 24
    "ACK": (
        r.ACK_OUT,
        {"flags": Flag.R, "syndrome": 0x1F, "msn": 0x102},
        packet(CONTROL, "d1 80 ffff 00 123456 40 abcdef 1f 000102"),
    ),
    # type 0000, next 00000, m 01, reserved 000, pr 1, reserved 0: 0000 0000 0010 0010 = 0022; ack_psn_offset -2
    # entropy; delivery contexts; port_state 81, cack_psn; cc_type 0001, cc_flags 0000: 10; mpr 16 = 10; sack_offset 1
    # bitmap; stamp; reserved 0, ooo_count 15 bits: 7234; restore_cwnd 1, rcv_cwnd_pen 0000101: 85; rcvd_bytes 24
    "SACK": (
        r.SACK_OUT,
        {
            "m": 1,
            "pr": 1,
            "ack_psn_offset": -2,
            "entropy": 0xDEADBEEF,
            "port_state": 0x81,
            "cack_psn": 0x010203,
            "mpr": 16,
            "sack_offset": 1,
            "bitmap": 0x8000000000000002,
            "stamp": 0xBEEF,
            "ooo_count": 0x7234,
            "restore_cwnd": 1,
            "rcv_cwnd_pen": 5,
            "rcvd_units": 0x0A0B0C,
        },
        packet(
            CONTROL,
            "dc 80 ffff 00 123456 00 abcdef"
            f"0022 fffe deadbeef {DCID} 81 010203 10 10 0001 8000000000000002 beef 7234 85 0a0b0c",
        ),
    ),
    # type 0000, next 00000, reserved 0000000; reason 0b; vendor 00; entropy; contexts; reserved 00, nack_psn;
    # cc_type 0010, cc_flags 0000: 20; reserved 00; stamp
    "NACK": (
        r.NACK_OUT,
        {"reason": 0x0B, "entropy": 0xDEADBEEF, "nack_psn": 0x010203, "stamp": 0xBEEF},
        packet(CONTROL, f"dd 80 ffff 00 123456 00 abcdef 0000 0b 00 deadbeef {DCID} 00 010203 20 00 beef"),
    ),
    # type 0000, next 00000, reserved 0000000; reserved 00; vendor 00; probe_id; reserved 0000; contexts; stamp;
    # tsr 0, reserved, ftype 0001
    "PROBE": (
        r.PROBE_OUT,
        {"probe_id": 0x7001, "stamp": 0xBEEF},
        packet(CONTROL, f"de 80 ffff 00 123456 00 abcdef 0000 00 00 7001 0000 {DCID} beef 0001"),
    ),
    # type 0000, next 00000, reserved 00000, op 01: 0001; reserved 00; vendor 00; mask 32; reserved 32; stamp; ftype 1
    "ENDPOINT_REQUEST": (
        r.ENDPOINT_OUT,
        {"opcode": 0xD8, "op": 1, "port_mask": 0x80000001, "stamp": 0xBEEF},
        packet(CONTROL, "d8 80 ffff 00 123456 00 abcdef 0001 00 00 80000001 00000000 beef 0001"),
    ),
    # type 0000, next 00000, reserved 0, op 01, reserved 20 bits: 0000 0000 0001 0000 ...: 0010 0000; reserved 192 bits;
    # stamp; reserved 48 bits
    "ENDPOINT_RESPONSE": (
        r.ENDPOINT_OUT,
        {"opcode": 0xD9, "op": 1, "stamp": 0xBEEF},
        packet(CONTROL, f"d9 80 ffff 00 123456 00 abcdef 00100000 {'00' * 24} beef 000000000000"),
    ),
}


def test_each_opcode_has_its_vector() -> None:
    assert {*WRITES, *CONTROLS} == {opcode.name for opcode in load().opcodes.values()}


def test_one_packet_written_out_from_end_to_end() -> None:
    # 40 + 40 + 8 + 12 + 4 + 16 + 8 + 4 = 132 bytes; 132 - 40 = 0x5c; 132 - 80 = 0x34
    covered = (
        "62a0abcd 005c 29 40 20010db8000000000000000000000011 5f000000010102020303040400000000"
        "6000abcd 0034 11 40 20010db8000000000000000000000011 20010db8000000000000000000000022"
        "1234 12b7 0034 0000"
        "ca b0 ffff 00 123456 80 abcdef 0102 0304 1122334455667788 99aabbcc 0000abcd 68656c6c6f 000000"
    )
    # With ones for traffic class, flow label, hop limit, checksum and the byte after P_Key.
    masked = (
        "ffffffffffffffff"
        "6fffffff 0034 11 ff 20010db8000000000000000000000011 20010db8000000000000000000000022"
        "1234 12b7 0034 ffff"
        "ca b0 ffff ff 123456 80 abcdef 0102 0304 1122334455667788 99aabbcc 0000abcd 68656c6c6f 000000"
    )
    expected = bytes.fromhex(covered) + plain_crc32(bytes.fromhex(masked)).to_bytes(4, "little")
    assert WRITES["WRITE_ONLY"][2] == expected
    assert plain_crc32(b"123456789") == 0xCBF43926  # the check value of CRC-32


@pytest.mark.parametrize("name", WRITES)
def test_writes_are_encoded_as_by_hand(name: str) -> None:
    values, payload, expected = WRITES[name]
    pair = Pair()
    pair.memory[100 : 100 + len(payload)] = list(payload)
    row: dict[str, Any] = {**WRITE, **values, "length": len(payload), "source": pair.address + 100}
    assert pair.writes(row)[0].hex() == expected.hex()


@pytest.mark.parametrize("name", WRITES)
def test_writes_are_decoded_as_by_hand(name: str) -> None:
    values, payload, octets = WRITES[name]
    pair = Pair()
    received = pair.receive([octets], first=7)
    assert not received.dropped
    (row,) = received.writes
    expected = {
        **WRITE,
        "flags": 0,
        "stamp": 0,
        "imm": 0,
        "dscp": Dscp.TRIMMABLE,
        **values,
        "t_ns": 1000,
        "qp": 1,
        "ev": 0xABCD1234,
        "plane": 0,
        "ecn": Ecn.ECT_0,
        "length": len(payload),
        "frame": 7,
        "trimmed": 0,
    }
    assert {field: int(row[field]) for field in expected} == expected
    assert set(r.WRITE_IN.names or ()) - set(expected) == {"at"}
    assert pair.payload(row) == payload


@pytest.mark.parametrize("name", CONTROLS)
def test_control_packets_are_encoded_as_by_hand(name: str) -> None:
    dtype, values, expected = CONTROLS[name]
    pair = Pair()
    (octets,) = pair.controls(pair.control_rows(dtype, {"psn": 0xABCDEF, **values}))
    assert octets.hex() == expected.hex()


@pytest.mark.parametrize("name", CONTROLS)
def test_control_packets_are_decoded_as_by_hand(name: str) -> None:
    _, values, octets = CONTROLS[name]
    received = Pair().receive([octets])
    assert not received.dropped
    kinds = {"ACK": "acks", "SACK": "sacks", "NACK": "nacks", "PROBE": "probes"}
    (row,) = getattr(received, kinds.get(name, "endpoints"))
    expected = {
        "t_ns": 1000,
        "qp": 1,
        "ev": 0xABCD1234,
        "psn": 0xABCDEF,
        "plane": 0,
        "dscp": Dscp.CONTROL,
        "ecn": Ecn.NOT_ECT,
        "flags": 0,
        **({"port_mask": 0} if name == "ENDPOINT_RESPONSE" else {}),
        **values,
    }
    assert {field: int(row[field]) for field in row.dtype.names} == expected


@pytest.mark.parametrize(
    ("choices", "ev", "outer_word", "inner_word", "port"),
    [
        # EV 0xabcd1234: high half into the label, low half into the port
        ({"ev_flow_label": "high16", "ev_flow_label_in": "both"}, 0xABCD1234, "62a0abcd", "6000abcd", "1234"),
        ({"ev_flow_label": "high16", "ev_flow_label_in": "outer"}, 0xABCD1234, "62a0abcd", "60000000", "1234"),
        ({"ev_flow_label": "high16", "ev_flow_label_in": "inner"}, 0xABCD1234, "62a00000", "6000abcd", "1234"),
        # EV 0xbcd34: all of its 20 bits into the label, the low 16 into the port too
        ({"ev_flow_label": "low20", "ev_flow_label_in": "both"}, 0xBCD34, "62abcd34", "600bcd34", "cd34"),
        ({"ev_flow_label": "low20", "ev_flow_label_in": "outer"}, 0xBCD34, "62abcd34", "60000000", "cd34"),
        ({"ev_flow_label": "low20", "ev_flow_label_in": "inner"}, 0xBCD34, "62a00000", "600bcd34", "cd34"),
    ],
)
def test_an_ev_lies_where_the_choices_say(
    choices: dict[str, str], ev: int, outer_word: str, inner_word: str, port: str
) -> None:
    pair = Pair(load().choosing(**choices), (ev,))
    packets = pair.writes({"opcode": 0xCA, "length": 8})
    packets += pair.controls(pair.control_rows(r.ACK_OUT, {"dscp": Dscp.TRIMMABLE}))
    for octets, first_word in zip(packets, (outer_word, outer_word[0:2] + "8" + outer_word[3:]), strict=True):
        assert octets[0:4].hex() == first_word
        assert octets[40:44].hex() == inner_word
        assert octets[80:82].hex() == port
    received = pair.receive(packets)
    assert received.writes["ev"].tolist() == received.acks["ev"].tolist() == [ev]


def test_bits_of_the_bth_are_in_ibtas_order_where_that_is_chosen() -> None:
    pair = Pair(load().choosing(bth_bit_order="ibta"))
    rows = ({"opcode": 0xCA, "length": 3}, {"opcode": 0xCA, "length": 3, "flags": Flag.SE})
    packets = pair.writes(*rows)
    # se 0, m 1, pad 01, tver 0000: 50; se 1: d0
    assert [octets[89] for octets in packets] == [0x50, 0xD0]
    assert pair.receive(packets).writes["flags"].tolist() == [0, Flag.SE]
    assert [octets[89] for octets in Pair().writes(*rows)] == [0x90, 0xD0]


def test_another_port_may_be_chosen() -> None:
    pair = Pair(load().choosing(udp_destination_port=4971))
    packets = pair.writes({"opcode": 0xCA, "length": 4}) + pair.controls(pair.control_rows(r.ACK_OUT, {}))
    assert {octets[82:84] for octets in packets} == {(4971).to_bytes(2, "big")}
    assert not pair.receive(packets).dropped
    assert Pair().receive(packets).dropped == {"not_mrc": 2}


def test_a_packet_goes_to_its_paths_outer_destination() -> None:
    pair = Pair()
    encoded = pair.write_encoder.encode(pair.write_rows({"opcode": 0xCA, "path": 2}, {"opcode": 0xCA, "path": 0}))
    at = pair.paths.sockaddrs.ctypes.data
    assert encoded.messages["name"].tolist() == [at + 2 * 28, at]
    assert encoded.messages["name_length"].tolist() == [28, 28]
    assert pair.paths.sockaddrs["address"].tobytes()[:16].hex() == "5f000000010102020303040400000000"
    assert np.all(pair.paths.sockaddrs["family"] == 10)
