"""Every column of every row lies in exactly the bits that the table gives its field."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.mrc import rows as r
from testbed.mrc.rows import Flag
from testbed.mrc.wire.paths import PREFIX
from testbed.mrc.wire.table import load
from tests.unit.mrc.wire.pair import DQP, Pair, sealed

BTH_AT = 88

WRITE_FIELDS = {
    "opcode": "BTH.opcode",
    "dqp": "BTH.dqp",
    "psn": "BTH.psn",
    "rqmsn": "METH.rqmsn",
    "msn": "METH.msn",
    "stamp": "TSETH.tx_timestamp",
    "va": "RETH.va",
    "rkey": "RETH.rkey",
    "dma_length": "RETH.dma_length",
    "imm": "ImmDt.immediate",
}
FLAGS = {Flag.A: "BTH.a", Flag.R: "BTH.r", Flag.RTX: "BTH.rtx", Flag.SE: "BTH.se"}
CONTROL_FIELDS = {
    "SACK": {
        "m": "SETH.m",
        "pr": "SETH.pr",
        "ack_psn_offset": "SETH.ack_psn_offset",
        "entropy": "SETH.entropy",
        "port_state": "SETH.port_state",
        "cack_psn": "SETH.cack_psn",
        "mpr": "SETH.mpr",
        "sack_offset": "SETH.sack_offset",
        "bitmap": "SETH.sack_bitmap",
        "stamp": "CC_STATE.tx_timestamp",
        "ooo_count": "CC_STATE.ooo_count",
        "restore_cwnd": "CC_STATE.restore_cwnd",
        "rcv_cwnd_pen": "CC_STATE.rcv_cwnd_pen",
        "rcvd_units": "CC_STATE.rcvd_bytes",
    },
    "NACK": {
        "reason": "NETH.reason",
        "entropy": "NETH.entropy",
        "nack_psn": "NETH.nack_psn",
        "stamp": "NETH.tx_timestamp",
    },
    "ACK": {"syndrome": "AETH.syndrome", "msn": "AETH.msn"},
    "PROBE": {"probe_id": "PETH.probe_id", "stamp": "PETH.tx_timestamp"},
    "ENDPOINT_REQUEST": {"op": "ERTH.op", "port_mask": "ERTH.port_status_mask", "stamp": "ERTH.tx_timestamp"},
    "ENDPOINT_RESPONSE": {"op": "EETH.op", "stamp": "EETH.tx_timestamp"},
}
SENT = {
    "SACK": r.SACK_OUT,
    "NACK": r.NACK_OUT,
    "ACK": r.ACK_OUT,
    "PROBE": r.PROBE_OUT,
    "ENDPOINT_REQUEST": r.ENDPOINT_OUT,
    "ENDPOINT_RESPONSE": r.ENDPOINT_OUT,
}


def bit_range(headers: tuple[str, ...], name: str) -> tuple[int, int]:
    """First bit of a field, counted from the BTH's first, and how many; by adding up the table."""
    at = 0
    for header in headers:
        for field in load().headers[header].fields.values():
            if f"{header}.{field.name}" == name:
                return at, field.bits
            at += field.bits
    raise AssertionError(name)


def changed(one: bytes, other: bytes, bits: tuple[int, int]) -> int:
    """The field in which two packets differ, ICRCs aside; fails where they differ elsewhere."""
    first, count = bits
    size = 8 * (len(one) - BTH_AT - 4)
    difference = int.from_bytes(one[BTH_AT:-4], "big") ^ int.from_bytes(other[BTH_AT:-4], "big")
    shift = size - first - count
    assert difference & ~(((1 << count) - 1) << shift) == 0
    assert one[:BTH_AT] == other[:BTH_AT]
    return difference >> shift


def patterns(bits: int) -> list[int]:
    """Each bit alone, and all of them."""
    return [*(1 << bit for bit in range(bits)), (1 << bits) - 1]


def test_the_prefix_is_as_long_as_three_headers() -> None:
    assert PREFIX.itemsize == BTH_AT == 40 + 40 + 8


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("column", WRITE_FIELDS)
def test_columns_of_writes(column: str, stamped: bool) -> None:
    pair = Pair()
    headers = ("BTH", "METH", *(["TSETH"] if stamped else []), "RETH", "ImmDt")
    name = WRITE_FIELDS[column]
    if name.partition(".")[0] not in headers or column == "opcode":
        headers = ("BTH", "METH", "TSETH", "RETH", "ImmDt")
        stamped = True
    flags = int(Flag.TS) if stamped else 0
    base = {"opcode": 0xCB, "flags": flags, "length": 4, "dqp": 0}
    first, bits = bit_range(headers, name)
    values = [value for value in patterns(bits) if column != "opcode"] or [0xC9 ^ 0xCB]
    zero, *packets = pair.writes(base, *[{**base, column: base.get(column, 0) ^ value} for value in values])
    assert [changed(zero, octets, (first, bits)) for octets in packets] == values
    if column not in ("dqp", "opcode"):
        rows = [{**base, "dqp": DQP, column: value} for value in values]
        assert pair.receive(pair.writes(*rows)).writes[column].tolist() == values


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_of_all_packets(flag: Flag) -> None:
    pair = Pair()
    bits = bit_range(("BTH",), FLAGS[flag])
    one, other = pair.writes({"opcode": 0xCA}, {"opcode": 0xCA, "flags": flag})
    assert changed(one, other, bits) == 1
    assert pair.receive([one, other]).writes["flags"].tolist() == [0, flag]
    one, other = pair.controls(pair.control_rows(r.ACK_OUT, {}, {"flags": flag}))
    assert changed(one, other, bits) == 1
    assert pair.receive([one, other]).acks["flags"].tolist() == [0, flag]


def test_the_time_stamp_flag_says_whether_there_is_a_tseth() -> None:
    first, _ = bit_range(("BTH",), "BTH.ts")
    without, with_it = Pair().writes({"opcode": 0xCA}, {"opcode": 0xCA, "flags": Flag.TS})
    assert len(with_it) - len(without) == 4
    byte, bit = divmod(first, 8)
    assert (without[BTH_AT + byte] ^ with_it[BTH_AT + byte]) == 0x80 >> bit


@pytest.mark.parametrize(("kind", "column"), [(kind, column) for kind in SENT for column in CONTROL_FIELDS[kind]])
def test_columns_of_control_packets(kind: str, column: str) -> None:
    pair, dtype = Pair(), SENT[kind]
    opcode = load().opcode(kind)
    base = {"opcode": opcode} if kind.startswith("ENDPOINT") else {}
    first, bits = bit_range(("BTH", *load().opcodes[opcode].headers), CONTROL_FIELDS[kind][column])
    values = patterns(bits)
    signed = dtype[column].kind == "i"
    given = [value - (1 << bits) if signed and value >> bits - 1 else value for value in values]
    packets = pair.controls(pair.control_rows(dtype, base, *[{**base, column: value} for value in given]))
    assert [changed(packets[0], octets, (first, bits)) for octets in packets[1:]] == values
    received = pair.receive(packets[1:])
    rows = next(
        rows
        for rows in (received.sacks, received.nacks, received.acks, received.probes, received.endpoints)
        if len(rows)
    )
    assert rows[column].tolist() == given


def test_every_column_has_been_compared() -> None:
    common = {"path", "qp", "dqp", "psn", "dscp", "flags", "opcode"}
    for kind, dtype in SENT.items():
        missing = {"port_mask"} if kind == "ENDPOINT_RESPONSE" else set()
        assert set(dtype.names or ()) - common == set(CONTROL_FIELDS[kind]) | missing
    assert set(r.WRITE_OUT.names or ()) - common - {"length", "source"} == set(WRITE_FIELDS) - common


def test_reserved_bits_are_not_looked_at() -> None:
    pair = Pair()
    (sack,) = pair.controls(pair.control_rows(r.SACK_OUT, {"bitmap": 5}))
    body = int.from_bytes(sack[BTH_AT:-4], "big")
    headers = ("BTH", "SETH", "CC_STATE")
    for header, name in (("BTH", "inv_res"), ("SETH", "type"), ("SETH", "reserved"), ("CC_STATE", "reserved")):
        first, bits = bit_range(headers, f"{header}.{name}")
        body |= ((1 << bits) - 1) << 8 * (len(sack) - BTH_AT - 4) - first - bits
    changed_packet = sealed(sack[:BTH_AT] + body.to_bytes(len(sack) - BTH_AT - 4, "big"))
    assert changed_packet != sack
    assert np.array_equal(pair.receive([changed_packet]).sacks, pair.receive([sack]).sacks)
