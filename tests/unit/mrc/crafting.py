"""Packets of every opcode, crafted with scapy, every field drawn at random or set to something of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache
from typing import Any

from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from testbed.mrc.wire import layers
from testbed.mrc.wire.anatomy import ENUMERATED, SIGNED
from testbed.mrc.wire.layers import ICRC, LAYERS, TABLE
from testbed.mrc.wire.table import Field

OPCODES = sorted(opcode.name for opcode in TABLE.opcodes.values())
#: Given a meaning by the packet they are in, and left to the layers.
_LEFT_OUT = {("BTH", "opcode"), ("BTH", "pad"), ("BTH", "ts"), ("RETH", "dma_length")}
#: As every good packet has them.
_FIXED = {("BTH", "m"): 1, ("BTH", "tver"): 0, ("BTH", "inv_res"): 0, ("BTH", "r"): 0, ("BTH", "rtx"): 0}
_FIXED |= {("SETH", "cc_type"): 1, ("NETH", "cc_type"): 2}
#: Bytes of a pcap file before its first packet.
FILE_HEADER = 24
Values = dict[str, dict[str, Any]]


def envelope(ev: int, role: str, ecn: int = 0) -> Packet:
    """What is around a BTH: outer and inner IPv6, UDP."""
    outer, inner, udp = layers.carrying(ev)
    made: Packet = IPv6(src="fd8e::9", dst="5f00:0:1600:2601:1601:e601::", tc=layers.traffic_class(role, ecn), **outer)
    return made / IPv6(src="fd8e::1", dst="fd8e::2", **inner) / UDP(**udp)


def packet(opcode: str, values: Values, *, stamped: bool = True, payload: bytes = b"", ev: int = 0x01230B0A) -> Packet:
    """A good packet with these values of its fields."""
    number = TABLE.opcode(opcode)
    carries = TABLE.opcodes[number].payload
    made = envelope(ev, "TRIMMABLE" if carries else "CONTROL", 2 if carries else 0)
    made /= LAYERS["BTH"](opcode=number, **values.get("BTH", {}))
    for name in TABLE.opcodes[number].headers:
        if name != "TSETH" or stamped:
            made /= LAYERS[name](**values.get(name, {}))
    if payload:
        made /= Raw(payload)
    return made / ICRC()


def judged(header: str, field: Field) -> int | None:
    """The only value of a field in a good packet; None where there are more."""
    return 0 if field.reserved else _FIXED.get((header, field.name))


def example(opcode: str) -> Packet:
    """A good packet in which neighbouring fields differ."""
    values: Values = {}
    seed = 1
    for name in ("BTH", *TABLE.opcodes[TABLE.opcode(opcode)].headers):
        values[name] = {}
        for field in TABLE.headers[name].fields.values():
            seed = seed * 48271 % 0x7FFFFFFF
            if (name, field.name) not in _LEFT_OUT:
                allowed = _allowed(name, field)
                if isinstance(allowed, range):
                    values[name][field.name] = allowed.start + seed**3 % (allowed.stop - allowed.start)
                else:
                    values[name][field.name] = allowed[seed % len(allowed)]
    return finished(opcode, values, stamped=True, words=5, odd=3, ev=0x01230B0A)


@cache
def example_bytes(opcode: str) -> bytes:
    """The bytes of :func:`example`, built once: scapy takes its time."""
    return bytes(example(opcode))


def finished(opcode: str, values: Values, *, stamped: bool, words: int, odd: int, ev: int) -> Packet:
    """A good packet with these values and so much payload as its opcode may have."""
    payload = b""
    if TABLE.opcodes[TABLE.opcode(opcode)].payload:
        length = 4 * words + (0 if opcode in ("WRITE_FIRST", "WRITE_MIDDLE") else odd)
        payload = bytes(number * 7 & 0xFF for number in range(length if "ONLY" in opcode else max(length, 1)))
        if opcode in ("WRITE_FIRST", "WRITE_MIDDLE"):
            payload += bytes(-len(payload) % 4)
        if "ONLY" not in opcode:
            values["RETH"]["dma_length"] = len(payload) + 4096
    return packet(opcode, values, stamped=stamped, payload=payload, ev=ev)


def _allowed(header: str, field: Field) -> range | list[int]:
    only = judged(header, field)
    if only is not None:
        return [only]
    if (header, field.name) in ENUMERATED:
        return list(TABLE.enumerations[ENUMERATED[header, field.name]].values())
    if (header, field.name) in SIGNED:
        return range(-(1 << field.bits - 1), 1 << field.bits - 1)
    return range(1 << field.bits)


@st.composite
def good_packets(draw: st.DrawFn, opcode: str) -> tuple[Packet, Values]:
    """A packet that departs from nothing, and the values drawn for its fields."""
    stamped = draw(st.booleans())
    values: Values = {}
    for name in ("BTH", *TABLE.opcodes[TABLE.opcode(opcode)].headers):
        if name == "TSETH" and not stamped:
            continue
        values[name] = {}
        for field in TABLE.headers[name].fields.values():
            if (name, field.name) not in _LEFT_OUT:
                allowed = _allowed(name, field)
                values[name][field.name] = draw(
                    st.integers(allowed.start, allowed.stop - 1)
                    if isinstance(allowed, range)
                    else st.sampled_from(allowed)
                )
    made = finished(
        opcode,
        values,
        stamped=stamped,
        words=draw(st.integers(0, 9)),
        odd=draw(st.integers(0, 3)),
        ev=draw(st.integers(0, 0xFFFFFFFF)),
    )
    return made, values


def pcap(packets: Iterable[bytes], link_type: int = 101, *, snap: int = 1 << 18, order: str = "<") -> bytes:
    """A pcap file of these; stamps are a second apart."""
    out = struct.pack(f"{order}IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snap, link_type)
    for number, each in enumerate(packets):
        kept = each[:snap]
        out += struct.pack(f"{order}IIII", 1_700_000_000 + number, 5, len(kept), len(each)) + kept
    return out
