"""The two readings of the table against each other, in both directions: scapy layers, and the data path's columns."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from testbed.mrc.rows import (
    ACK_IN,
    ACK_OUT,
    ENDPOINT_IN,
    ENDPOINT_OUT,
    NACK_IN,
    NACK_OUT,
    PROBE_IN,
    PROBE_OUT,
    SACK_IN,
    SACK_OUT,
    WRITE_IN,
    WRITE_OUT,
    Dscp,
    Ecn,
    Flag,
    Rows,
)
from testbed.mrc.wire.anatomy import ENUMERATED, SIGNED, PacketReader
from testbed.mrc.wire.capturefile import Captured
from testbed.mrc.wire.control import ControlEncoder
from testbed.mrc.wire.decoder import Decoder
from testbed.mrc.wire.deviations import Judge
from testbed.mrc.wire.layers import ICRC, LAYERS, TABLE, carrying, traffic_class
from testbed.mrc.wire.paths import PathTable
from testbed.mrc.wire.payloads import Payloads
from testbed.mrc.wire.received import Received
from testbed.mrc.wire.writes import WriteEncoder

PMTU = 256
#: Where packets begin in a frame of the ring.
AT = 16
EV = 0xFEDC4321
OUTER = ("fd00::11", "5f00:0:1600:2601:1601:e601::")
INNER = ("fd00::1", "fd00::2")
LOCAL_QP, REMOTE_QP = 0x00A1B2, 0xC3D4E5
#: Payload of every WRITE: a part of it.
MEMORY = (np.arange(2 * PMTU) * 31 % 251).astype(np.uint8)
#: Opcode → rows to send and received, and field of each of their own columns.
KINDS: dict[str, tuple[Any, Any, dict[str, str]]] = {
    "SACK": (SACK_OUT, SACK_IN, {
        "m": "SETH.m", "pr": "SETH.pr", "ack_psn_offset": "SETH.ack_psn_offset", "entropy": "SETH.entropy",
        "port_state": "SETH.port_state", "cack_psn": "SETH.cack_psn", "mpr": "SETH.mpr",
        "sack_offset": "SETH.sack_offset", "bitmap": "SETH.sack_bitmap", "stamp": "CC_STATE.tx_timestamp",
        "ooo_count": "CC_STATE.ooo_count", "restore_cwnd": "CC_STATE.restore_cwnd",
        "rcv_cwnd_pen": "CC_STATE.rcv_cwnd_pen", "rcvd_units": "CC_STATE.rcvd_bytes",
    }),
    "NACK": (NACK_OUT, NACK_IN, {
        "reason": "NETH.reason", "entropy": "NETH.entropy", "nack_psn": "NETH.nack_psn", "stamp": "NETH.tx_timestamp",
    }),
    "ACK": (ACK_OUT, ACK_IN, {"syndrome": "AETH.syndrome", "msn": "AETH.msn"}),
    "PROBE": (PROBE_OUT, PROBE_IN, {"probe_id": "PETH.probe_id", "stamp": "PETH.tx_timestamp"}),
    "ENDPOINT_REQUEST": (ENDPOINT_OUT, ENDPOINT_IN, {
        "op": "ERTH.op", "port_mask": "ERTH.port_status_mask", "stamp": "ERTH.tx_timestamp",
    }),
    "ENDPOINT_RESPONSE": (ENDPOINT_OUT, ENDPOINT_IN, {"op": "EETH.op", "stamp": "EETH.tx_timestamp"}),
}  # fmt: skip
WRITE_FIELDS = {
    "rqmsn": "METH.rqmsn", "msn": "METH.msn", "stamp": "TSETH.tx_timestamp", "va": "RETH.va", "rkey": "RETH.rkey",
    "dma_length": "RETH.dma_length", "imm": "ImmDt.immediate",
}  # fmt: skip
WRITES = [opcode.name for opcode in TABLE.opcodes.values() if opcode.payload]
FLAGS = {Flag.A: "a", Flag.R: "r", Flag.RTX: "rtx", Flag.SE: "se"}
Row = dict[str, int]


def _octets(address: str) -> Any:
    return np.frombuffer(IPv6Address(address).packed, np.uint8)[None, :]


def paths(ev: int) -> PathTable:
    """One path with this EV."""
    return PathTable(
        outer_source=_octets(OUTER[0]),
        outer_destination=_octets(OUTER[1]),
        inner_source=_octets(INNER[0]),
        inner_destination=_octets(INNER[1]),
        ev=np.array([ev], "u4"),
        plane=np.array([3], "u1"),
    )


def crafted(opcode: str, row: Row, fields: dict[str, str], ev: int, payload: bytes) -> Packet:
    """The packet of a row, by the scapy layers."""
    outer, inner, udp = carrying(ev)
    data = TABLE.opcodes[TABLE.opcode(opcode)].payload
    tc = traffic_class(Dscp(row["dscp"]).name, Ecn.ECT_0 if data else Ecn.NOT_ECT)
    made: Packet = IPv6(src=OUTER[0], dst=OUTER[1], tc=tc, **outer)
    made /= IPv6(src=INNER[0], dst=INNER[1], **inner) / UDP(**udp)
    flags: dict[str, Any] = {name: int(bool(row["flags"] & flag)) for flag, name in FLAGS.items()}
    made /= LAYERS["BTH"](opcode=opcode, dqp=REMOTE_QP, psn=row["psn"], **flags)
    for name in TABLE.opcodes[TABLE.opcode(opcode)].headers:
        if name == "TSETH" and not row["flags"] & Flag.TS:
            continue
        layer = LAYERS[name]()
        for column, field in fields.items():
            if field.startswith(f"{name}."):
                setattr(layer, field.split(".")[1], row[column])
        if "spdcid" in layer.header.fields:
            layer.spdcid, layer.dpdcid = LOCAL_QP & 0xFFFF, REMOTE_QP & 0xFFFF
        made /= layer
    return (made / Raw(payload) if payload else made) / ICRC()


def drawn(draw: st.DrawFn, opcode: str, columns: dict[str, str], flags: int, stamped: bool) -> Row:
    """A row of values that depart from nothing."""
    row: Row = {"psn": draw(st.integers(0, 0xFFFFFF)), "flags": draw(st.integers(0, 31)) & flags}
    headers = TABLE.opcodes[TABLE.opcode(opcode)].headers
    for column, name in columns.items():
        header, field = name.split(".")
        if (header, field) in ENUMERATED:
            row[column] = draw(st.sampled_from(sorted(TABLE.enumerations[ENUMERATED[header, field]].values())))
        elif header not in headers or (header == "TSETH" and not stamped):
            row[column] = 0
        else:
            bits = TABLE.headers[header].fields[field].bits
            low = -(1 << bits - 1) if (header, field) in SIGNED else 0
            row[column] = draw(st.integers(low, low + (1 << bits) - 1))
    return row


@st.composite
def writes(draw: st.DrawFn, opcode: str) -> tuple[Row, bytes]:
    """A row of a WRITE, and its payload."""
    stamped = draw(st.booleans())
    row = drawn(draw, opcode, WRITE_FIELDS, Flag.A | Flag.SE, stamped)
    row["dscp"] = draw(st.sampled_from([Dscp.NO_TRIM, Dscp.TRIMMABLE, Dscp.TRIMMABLE_RETRANSMIT]))
    row["flags"] |= Flag.TS * stamped | Flag.RTX * (row["dscp"] == Dscp.TRIMMABLE_RETRANSMIT)
    only, inside = "ONLY" in opcode, opcode in ("WRITE_FIRST", "WRITE_MIDDLE")
    length = 4 * draw(st.integers(1, PMTU // 4)) if inside else draw(st.integers(0 if only else 1, PMTU))
    row["dma_length"] = length if only else length + draw(st.integers(1, 1 << 31))
    row["opcode"], row["length"] = TABLE.opcode(opcode), length
    at = draw(st.integers(0, PMTU))
    row["source"] = MEMORY.ctypes.data + at
    return row, MEMORY[at : at + length].tobytes()


@st.composite
def controls(draw: st.DrawFn, opcode: str) -> Row:
    """A row of a control packet."""
    row = drawn(draw, opcode, KINDS[opcode][2], Flag.A | Flag.SE | Flag.R * (opcode == "ACK"), False)
    row["dscp"], row["opcode"] = Dscp.CONTROL, TABLE.opcode(opcode)
    return row


def rows_of(dtype: Any, values: Row) -> Rows:
    rows = np.zeros(1, dtype)
    for name in set(dtype.names) & set(values):
        rows[name] = values[name]
    rows["dqp"] = REMOTE_QP
    return rows


def no_deviation(data: bytes) -> None:
    """The plain reader agrees."""
    found = PacketReader(TABLE).read(Captured(1, 0, 101, len(data), data))
    assert found is not None
    assert Judge(TABLE).deviations(found) == []


def decoded(packets: list[bytes], qp: int) -> Received:
    """What the data path makes of packets to queue pair ``qp`` of this NIC."""
    ring = np.zeros((len(packets), 512), np.uint8)
    for row, packet in zip(ring, packets, strict=True):
        row[AT : AT + len(packet)] = np.frombuffer(packet, np.uint8)
    decoder = Decoder(TABLE, ring, AT, IPv6Address(INNER[1]).packed, PMTU)
    decoder.set_queue_pairs(np.array([qp], np.uint32), _octets(INNER[0]))
    lengths = np.array([len(packet) for packet in packets])
    times, planes = np.arange(len(packets), dtype=np.int64), np.full(len(packets), 3, np.uint8)
    return decoder.decode(0, len(packets), lengths, lengths, times, planes)


def check_row(rows: Rows, values: Row, ev: int, dtype: Any) -> None:
    assert rows.dtype == dtype
    assert len(rows) == 1
    expected = {name: values[name] for name in set(dtype.names) & set(values)}
    assert {name: int(rows[name][0]) for name in expected} == expected
    assert (int(rows["qp"][0]), int(rows["ev"][0]), int(rows["plane"][0])) == (0, ev, 3)


@pytest.mark.parametrize("opcode", WRITES)
@settings(max_examples=12, deadline=None)
@given(drawn=st.data(), ev=st.integers(0, 0xFFFFFFFF))
def test_the_data_path_and_scapy_build_the_same_writes(opcode: str, drawn: st.DataObject, ev: int) -> None:
    row, payload = drawn.draw(writes(opcode))
    payloads = Payloads()
    payloads.register(MEMORY)
    (data,) = WriteEncoder(TABLE, paths(ev), payloads, 1, PMTU).encode(rows_of(WRITE_OUT, row)).packets()
    assert data == bytes(crafted(opcode, row, WRITE_FIELDS, ev, payload))
    no_deviation(data)


@pytest.mark.parametrize("opcode", WRITES)
@settings(max_examples=12, deadline=None)
@given(drawn=st.data(), ev=st.integers(0, 0xFFFFFFFF))
def test_the_data_path_reads_scapys_writes(opcode: str, drawn: st.DataObject, ev: int) -> None:
    row, payload = drawn.draw(writes(opcode))
    received = decoded([bytes(crafted(opcode, row, WRITE_FIELDS, ev, payload))], REMOTE_QP)
    assert received.dropped == {}
    check_row(received.writes, row, ev, WRITE_IN)


@pytest.mark.parametrize("opcode", sorted(KINDS))
@settings(max_examples=12, deadline=None)
@given(drawn=st.data(), ev=st.integers(0, 0xFFFFFFFF))
def test_the_data_path_and_scapy_build_the_same_control_packets(opcode: str, drawn: st.DataObject, ev: int) -> None:
    row = drawn.draw(controls(opcode))
    encoder = ControlEncoder(TABLE, paths(ev), 1)
    encoder.set_queue_pairs(np.array([LOCAL_QP], np.uint32))
    sent, _, columns = KINDS[opcode]
    (data,) = encoder.encode(rows_of(sent, row)).packets()
    assert data == bytes(crafted(opcode, row, columns, ev, b""))
    no_deviation(data)


@pytest.mark.parametrize("opcode", sorted(KINDS))
@settings(max_examples=12, deadline=None)
@given(drawn=st.data(), ev=st.integers(0, 0xFFFFFFFF))
def test_the_data_path_reads_scapys_control_packets(opcode: str, drawn: st.DataObject, ev: int) -> None:
    row = drawn.draw(controls(opcode))
    _, dtype, columns = KINDS[opcode]
    received = decoded([bytes(crafted(opcode, row, columns, ev, b""))], REMOTE_QP)
    assert received.dropped == {}
    (rows,) = (each for each in vars(received).values() if isinstance(each, np.ndarray) and len(each))
    check_row(rows, row, ev, dtype)


@settings(max_examples=60, deadline=None)
@given(opcode=st.sampled_from(sorted(KINDS)), drawn=st.data(), where=st.integers(40, 139), bit=st.integers(0, 7))
def test_a_bit_that_changes_on_the_way_is_seen_by_both(opcode: str, drawn: st.DataObject, where: int, bit: int) -> None:
    """From the inner addresses on, unless the ICRC does not cover it."""
    row = drawn.draw(controls(opcode))
    data = bytearray(bytes(crafted(opcode, row, KINDS[opcode][2], EV, b"")))
    where = where % (len(data) - 40) + 40
    data[where] ^= 1 << bit
    received = decoded([bytes(data)], REMOTE_QP)
    found = PacketReader(TABLE).read(Captured(1, 0, 101, len(data), bytes(data)))
    # Traffic class, flow label and hop limit of the inner header, UDP checksum, variant byte of the BTH.
    uncovered = where in (41, 42, 43, 47, 86, 87, 92) or (where == 40 and bit < 4)
    assert bool(received.dropped) != uncovered
    if found is not None and not uncovered:
        assert Judge(TABLE).deviations(found)
