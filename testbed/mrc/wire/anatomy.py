"""Takes one captured packet apart by the table: plain Python, any link type, any bytes, nothing raised.

The second reader of the format beside the data path's: it keeps what does not fit instead of dropping it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from testbed.mrc.wire.capturefile import Captured
from testbed.mrc.wire.table import Header, Opcode, Table

IPV6_BYTES: Final = 40
UDP_BYTES: Final = 8
ICRC_BYTES: Final = 4
_IPV6, _UDP = 41, 17
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_ETHERTYPE_IPV6: Final = b"\x86\xdd"
_VLANS: Final = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")
#: LINKTYPE_ → where its two bytes of ethertype are, and where what follows begins.
_WITH_ETHERTYPE: Final = {1: (12, 14), 113: (14, 16), 276: (0, 20)}
#: LINKTYPE_ → bytes before the IP header: RAW (and as BSDs number it), IPV6, NULL, LOOP.
_WITHOUT: Final = {101: 0, 12: 0, 14: 0, 229: 0, 0: 4, 108: 4}
#: RoCEv2's port, and MRC's as one source prints it: a packet to one of them is looked at although the table's differs.
_LIKELY_PORTS: Final = (4791, 4971)
_HEADERS_MOST: Final = 16

#: Which enumeration names the values of a field.
ENUMERATED: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("TSETH", "ftype"): "tseth_ftype",
        ("AETH", "syndrome"): "syndrome",
        ("SETH", "m"): "sack_m",
        ("SETH", "cc_type"): "cc_type",
        ("NETH", "cc_type"): "cc_type",
        ("NETH", "reason"): "nack_reason",
        ("ERTH", "op"): "endpoint_op",
        ("EETH", "op"): "endpoint_op",
    }
)
#: Fields the table's prose calls signed.
SIGNED: Final = frozenset({("SETH", "ack_psn_offset"), ("SETH", "sack_offset")})
#: Fields that people read in hexadecimal.
HEXADECIMAL: Final = frozenset(
    {"p_key", "dqp", "va", "rkey", "immediate", "entropy", "sack_bitmap", "port_state", "port_status_mask", "opcode"}
    | {"spdcid", "dpdcid"}
)


@dataclass(frozen=True, slots=True)
class Ipv6:
    """An IPv6 header. ``at``: where in the data it begins."""

    at: int
    traffic_class: int
    flow_label: int
    payload_length: int
    next_header: int
    hop_limit: int
    source: bytes
    destination: bytes

    @property
    def dscp(self) -> int:
        """Its upper six bits of traffic class."""
        return self.traffic_class >> 2


@dataclass(frozen=True, slots=True)
class Udp:
    """A UDP header. ``at``: where in the data it begins."""

    at: int
    source_port: int
    destination_port: int
    length: int
    checksum: int


@dataclass(slots=True)
class Anatomy:
    """An MRC packet taken apart.

    Attributes:
        packet: what it was taken from.
        ip: its IPv6 headers, outermost first; the last is the inner one.
        headers: value by field by header, in the order of the wire, as far as they were captured; signed where the
            table says so.
        opcode: None where the table does not have it.
        at: where the payload begins, and everything after the last header known.
        end: where the packet ends by its UDP length; beyond the data where it was cut short.
        icrc: as carried; None where it was not captured.
    """

    packet: Captured
    ip: tuple[Ipv6, ...]
    udp: Udp
    opcode: Opcode | None
    at: int
    end: int
    headers: dict[str, dict[str, int]] = field(default_factory=dict)
    icrc: int | None = None

    @property
    def outer(self) -> Ipv6 | None:
        """None where the packet was captured, or sent, without encapsulation."""
        return self.ip[0] if len(self.ip) > 1 else None

    @property
    def inner(self) -> Ipv6:
        """The header the ICRC covers."""
        return self.ip[-1]

    @property
    def body(self) -> int:
        """Bytes between the last header and the ICRC: payload and padding; negative where headers do not fit."""
        return self.end - ICRC_BYTES - self.at

    @property
    def whole(self) -> bool:
        """All that the lengths promise was captured."""
        return self.end <= len(self.packet.data)

    def ev(self, table: Table) -> int:
        """The entropy value, joined as the table's choices say."""
        label = self.ip[0 if table.choices.ev_flow_label_in == "outer" else -1].flow_label
        if table.choices.ev_flow_label == "low20":
            return label
        return (label & 0xFFFF) << 16 | self.udp.source_port


class PacketReader:
    """Takes packets apart by one table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._layouts = {name: _Layout.of(header) for name, header in table.headers.items()}

    def read(self, packet: Captured) -> Anatomy | None:
        """The parts of an MRC packet; None for what is none.

        MRC is what goes to the table's UDP port inside IPv6 in IPv6. Without that encapsulation, or to another port,
        it is MRC where its opcode is, and to a port that neither MRC nor RoCEv2 is said to use only where the ICRC is
        right.
        """
        start = _ipv6_at(packet)
        if start is None:
            return None
        ip, at = _ipv6_headers(packet.data, start)
        if at is None or len(packet.data) < at + UDP_BYTES + 1:
            return None
        udp = Udp(at, *struct.unpack_from("!HHHH", packet.data, at))
        opcode = self.table.opcodes.get(packet.data[at + UDP_BYTES])
        usual = udp.destination_port == self.table.choices.udp_destination_port
        if not (usual and len(ip) > 1) and opcode is None:
            return None
        found = Anatomy(packet, ip, udp, opcode, at + UDP_BYTES, at + udp.length)
        self._read_headers(found)
        likely = usual or udp.destination_port in _LIKELY_PORTS
        return found if likely or (found.icrc is not None and found.icrc == computed_icrc(found)) else None

    def fields(self, header: str, data: bytes, at: int = 0) -> dict[str, int]:
        """The value of each field of a header that is whole in the data."""
        layout = self._layouts[header]
        value = int.from_bytes(data[at : at + layout.bytes])
        out = {}
        for name, shift, mask, sign in layout.fields:
            part = value >> shift & mask
            out[name] = part - mask - 1 if part & sign else part
        return out

    def _read_headers(self, found: Anatomy) -> None:
        data, last = found.packet.data, found.end - ICRC_BYTES
        for name in expected_headers(found):
            size = self._layouts[name].bytes
            if found.at + size > min(last, len(data)):
                break
            found.headers[name] = self.fields(name, data, found.at)
            found.at += size
        if found.whole and last >= found.udp.at + UDP_BYTES:
            found.icrc = int.from_bytes(data[last : found.end], "little")


def expected_headers(found: Anatomy) -> Iterator[str]:
    """Names of the headers that the packet's opcode, and its BTH's ``ts``, announce."""
    yield "BTH"
    for name in found.opcode.headers if found.opcode is not None else ():
        if name != "TSETH" or found.headers.get("BTH", {}).get("ts"):
            yield name


def computed_icrc(found: Anatomy) -> int | None:
    """The ICRC a packet should carry, as the number its four bytes are in little-endian order; None where cut short.

    RoCEv2's: CRC-32 over eight bytes of ones, the IPv6 header with traffic class, flow label and hop limit as ones,
    UDP with its checksum as ones, and the BTH with its variant byte as ones (InfiniBand Architecture, Annex A17).
    """
    udp, end = found.udp.at, found.end - ICRC_BYTES
    bth = udp + UDP_BYTES
    if not found.whole or end < bth + 5:
        return None
    data, inner = found.packet.data, found.inner.at
    covered = bytearray(b"\xff" * 8)
    covered += data[inner : inner + IPV6_BYTES] + data[udp : bth + 5]
    covered[8] |= 0x0F
    covered[9:12] = b"\xff\xff\xff"
    covered[15] = 0xFF
    covered[8 + IPV6_BYTES + 6 : 8 + IPV6_BYTES + 8] = b"\xff\xff"
    covered[8 + IPV6_BYTES + UDP_BYTES + 4] = 0xFF
    return zlib.crc32(memoryview(data)[bth + 5 : end], zlib.crc32(covered))


def computed_checksum(found: Anatomy) -> int:
    """The UDP checksum a whole packet should carry where it carries one (RFC 8200, 8.1)."""
    inner, udp = found.inner, found.udp
    covered = inner.source + inner.destination + struct.pack("!II", udp.length, _UDP)
    covered += found.packet.data[udp.at : udp.at + 6] + bytes(2) + found.packet.data[udp.at + UDP_BYTES : found.end]
    total = sum(struct.unpack(f"!{(len(covered) + 1) // 2}H", covered + bytes(len(covered) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def _ipv6_at(packet: Captured) -> int | None:
    data = packet.data
    if packet.link_type in _WITH_ETHERTYPE:
        kind, at = _WITH_ETHERTYPE[packet.link_type]
        while data[kind : kind + 2] in _VLANS:
            kind, at = at + 2, at + 4
        if data[kind : kind + 2] != _ETHERTYPE_IPV6:
            return None
        return at
    return _WITHOUT.get(packet.link_type)


def _ipv6_headers(data: bytes, at: int) -> tuple[tuple[Ipv6, ...], int | None]:
    """The IPv6 headers from there on, and where UDP begins; None where it does not come."""
    found: list[Ipv6] = []
    following = _IPV6
    for _ in range(_HEADERS_MOST):
        if following == _UDP:
            return tuple(found), at
        if following == _IPV6:
            if len(data) < at + IPV6_BYTES or data[at] >> 4 != 6:
                break
            word, length, following, hops = struct.unpack_from("!IHBB", data, at)
            addresses = data[at + 8 : at + 24], data[at + 24 : at + IPV6_BYTES]
            found.append(Ipv6(at, word >> 20 & 0xFF, word & 0xFFFFF, length, following, hops, *addresses))
            at += IPV6_BYTES
        elif following in (_HOP_BY_HOP, _ROUTING, _DESTINATION) and len(data) >= at + 2:
            following, at = data[at], at + 8 * (data[at + 1] + 1)
        elif following == _FRAGMENT and len(data) >= at + 8 and not int.from_bytes(data[at + 2 : at + 4]) & 0xFFF9:
            following, at = data[at], at + 8
        else:
            break
    return tuple(found), None


@dataclass(frozen=True, slots=True)
class _Layout:
    """A header's fields as name, shift and mask of the header taken as one number, and the sign bit, 0 for unsigned."""

    bytes: int
    fields: tuple[tuple[str, int, int, int], ...]

    @classmethod
    def of(cls, header: Header) -> _Layout:
        bits = 8 * header.bytes
        return cls(
            header.bytes,
            tuple(
                (
                    each.name,
                    bits - each.offset - each.bits,
                    (1 << each.bits) - 1,
                    1 << each.bits - 1 if (header.name, each.name) in SIGNED else 0,
                )
                for each in header.fields.values()
            ),
        )
