"""Packets as plain bytes with named fields: to make hostile ones, and to read them without the decoder under test."""

from __future__ import annotations

from functools import cache

from testbed.mrc.rows import Dscp, Ecn
from testbed.mrc.wire.icrc import icrc
from testbed.mrc.wire.layout import AFTER_BTH, BTH_AT, ICRC_BYTES, INNER_AT, UDP_AT, Shape, shape
from testbed.mrc.wire.table import load

TABLE = load()
OPCODES = sorted(TABLE.opcodes)
WRITES = [number for number in OPCODES if TABLE.opcodes[number].payload]
BY_NAME = {opcode.name: opcode.number for opcode in TABLE.opcodes.values()}
_TS_AT = TABLE.headers["BTH"].fields["ts"].offset
#: What a packet must have before anything in it counts, from the outer IPv6 header on.
_LEAST = AFTER_BTH + ICRC_BYTES


@cache
def layout(opcode: int, *, stamped: bool = True) -> Shape:
    """Where each field of packets with this opcode lies; of an unknown one, those of the BTH."""
    known = TABLE.opcodes.get(opcode)
    return shape(TABLE, known.headers if known else (), stamped=stamped or not known or not known.payload)


@cache
def field_names(opcode: int) -> list[str]:
    """The fields of packets with this opcode, in the order in which they lie."""
    return list(layout(opcode).fields)


def put(packet: bytearray, name: str, value: int) -> None:
    """Set a field, as far as the packet has it; too large a value is cut."""
    field = layout(packet[BTH_AT]).fields[name]
    first, last = field.offset // 8, -(-(field.offset + field.bits) // 8)
    if last > len(packet):
        return
    shift = 8 * last - field.offset - field.bits
    mask = (1 << field.bits) - 1
    whole = int.from_bytes(packet[first:last], "big") & ~(mask << shift)
    packet[first:last] = (whole | (value & mask) << shift).to_bytes(last - first, "big")


def get(packet: bytes | bytearray, name: str, *, stamped: bool = True) -> int:
    """A field of a packet that has it."""
    field = layout(packet[BTH_AT], stamped=stamped).fields[name]
    last = -(-(field.offset + field.bits) // 8)
    whole = int.from_bytes(packet[field.offset // 8 : last], "big")
    return whole >> (8 * last - field.offset - field.bits) & (1 << field.bits) - 1


def signed(value: int, bits: int) -> int:
    """The two's complement number that these bits stand for."""
    return value - (value >> bits - 1 << bits)


def bare(opcode: int, source: bytes, destination: bytes, ev: int, payload: bytes = b"") -> bytearray:
    """A packet of this opcode with all of its headers' fields 0, between two inner (and outer) addresses."""
    write = opcode in WRITES
    head = layout(opcode).header_bytes
    packet = bytearray(head) + payload + bytes(-len(payload) % 4 + ICRC_BYTES)
    traffic_class = TABLE.dscp["TRIMMABLE" if write else "CONTROL"] << 2 | (Ecn.ECT_0 if write else Ecn.NOT_ECT)
    for at, following, class_here in ((0, 41, traffic_class), (INNER_AT, 17, traffic_class)):
        packet[at : at + 4] = (6 << 28 | class_here << 20 | ev >> 16).to_bytes(4, "big")
        packet[at + 6], packet[at + 7] = following, 64
        packet[at + 8 : at + 40] = source + destination
    packet[UDP_AT : UDP_AT + 2] = (ev & 0xFFFF).to_bytes(2, "big")
    packet[UDP_AT + 2 : UDP_AT + 4] = TABLE.choices.udp_destination_port.to_bytes(2, "big")
    packet[BTH_AT] = opcode
    put(packet, "BTH.m", 1)
    put(packet, "BTH.p_key", 0xFFFF)
    if write:
        put(packet, "BTH.ts", 1)
        put(packet, "BTH.pad", -len(payload) % 4)
    return packet


def with_lengths(packet: bytearray) -> None:
    """Make the three lengths say what is there, as far as it reaches."""
    for at, before in ((4, 40), (INNER_AT + 4, UDP_AT), (UDP_AT + 4, UDP_AT)):
        if at + 2 <= len(packet):
            packet[at : at + 2] = max(0, len(packet) - before).to_bytes(2, "big")


def with_icrc(packet: bytearray) -> None:
    """Make the ICRC right, so that what is wrong gets past it."""
    if len(packet) >= _LEAST:
        packet[-ICRC_BYTES:] = icrc(bytes(packet[:-ICRC_BYTES])).to_bytes(ICRC_BYTES, "little")


def with_dscp(packet: bytearray, role: Dscp, ecn: int) -> None:
    """Change the outer traffic class, which the ICRC does not cover."""
    if len(packet) >= 4:
        traffic_class = TABLE.dscp.get(role.name, 0) << 2 | ecn & 3
        word = int.from_bytes(packet[:4], "big") & ~(0xFF << 20) | traffic_class << 20
        packet[:4] = word.to_bytes(4, "big")


def passes(packet: bytes, source: bytes, destination: bytes, qpn: int) -> bool:
    """Whether a NIC may act on it at all: whole, between these addresses, for this queue pair, ICRC right.

    A WRITE whose outer DSCP says that it was trimmed is not meant: it has no ICRC, and nothing of it is placed.
    """
    if len(packet) < _LEAST or packet[INNER_AT + 8 : UDP_AT] != source + destination or packet[BTH_AT] not in OPCODES:
        return False
    size = int.from_bytes(packet[4:6], "big") + INNER_AT
    if size > len(packet) or size < _LEAST or get(packet, "BTH.dqp") != qpn:
        return False
    return icrc(packet[: size - ICRC_BYTES]) == int.from_bytes(packet[size - ICRC_BYTES : size], "little")
