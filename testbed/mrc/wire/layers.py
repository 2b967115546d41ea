"""MRC's headers as scapy layers, for crafting and conformance: right by default, and as wrong as a test wants.

    IPv6(tc=40)/IPv6()/UDP(sport=7)/BTH(opcode="WRITE_ONLY", dqp=17)/METH()/TSETH()/RETH(va=0x1000)/Raw(b"data")/ICRC()

What is left out is worked out when the packet is built: lengths, BTH.pad and the padding itself, BTH.ts from a TSETH
that follows, RETH.dma_length of an only packet, ICRC from the inner IPv6 header on. What is given stays as given. A
packet taken from bytes rebuilds to the same bytes; its padding is in a layer of its own, :class:`Pad`.

Importing this takes scapy's start of half a second: nothing else of the testbed imports it.
"""

from __future__ import annotations

import zlib
from typing import Any, ClassVar, Final, cast

from scapy.fields import BitEnumField, BitField, Field, LEIntField, SignedShortField, StrField, XBitField
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw, bind_top_down

from testbed.mrc.wire import table as tables
from testbed.mrc.wire.anatomy import ENUMERATED, HEXADECIMAL, ICRC_BYTES, IPV6_BYTES, SIGNED

TABLE: Final = tables.load()
_WORD: Final = 4
_TIMESTAMP: Final = TABLE.enumerations["tseth_ftype"]["TIMESTAMP"]
#: Defaults other than 0; None is worked out when the packet is built.
_DEFAULTS: Final[dict[tuple[str, str], int | None]] = {
    ("BTH", "opcode"): TABLE.opcode("WRITE_ONLY"),
    ("BTH", "m"): 1,
    ("BTH", "pad"): None,
    ("BTH", "p_key"): 0xFFFF,
    ("BTH", "ts"): None,
    ("TSETH", "ftype"): _TIMESTAMP,
    ("PETH", "ftype"): _TIMESTAMP,
    ("ERTH", "ftype"): _TIMESTAMP,
    ("RETH", "dma_length"): None,
    ("AETH", "syndrome"): TABLE.enumerations["syndrome"]["ACK"],
    ("SETH", "cc_type"): TABLE.enumerations["cc_type"]["NSCC"],
    ("NETH", "cc_type"): TABLE.enumerations["cc_type"]["NACK"],
    ("NETH", "reason"): TABLE.enumerations["nack_reason"]["TRIMMED"],
}


class ICRC(Packet):
    """The last four bytes: RoCEv2's CRC over the inner IPv6 header and what follows; without one below, 0."""

    name = "ICRC"
    # Left out, its place is kept: the BTH, which sees all that is covered, fills it in.
    fields_desc: ClassVar[list[Any]] = [LEIntField("crc", None)]


class Pad(Packet):
    """Padding between payload and ICRC, as taken from bytes or as given."""

    name = "Pad"
    fields_desc: ClassVar[list[Any]] = [StrField("load", b"")]


class _Header(Packet):
    """A header of the table."""

    header: tables.Header
    size: int

    def do_dissect_payload(self, s: bytes) -> None:
        """Attach what follows: the next header of the opcode, or payload, padding and ICRC."""
        following = _following(self)
        if following is not None and s:
            self.add_payload(_taken(following, s, self))
        elif s:
            _attach_rest(self, s)


class _Bth(_Header):
    def do_build(self) -> bytes:
        """The bytes from here on; an ICRC set to None in a packet taken from bytes is worked out anew."""
        last = self.lastlayer()
        if isinstance(last, ICRC) and last.crc is None:
            self.clear_cache()
        return super().do_build()

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill in what was left out: ``pad`` with the padding, ``ts``, and an ICRC left out at the end."""
        last = self.lastlayer()
        tail = ICRC_BYTES if isinstance(last, ICRC) else 0
        value = int.from_bytes(pkt)
        if self.ts is None and self.haslayer(LAYERS["TSETH"]):
            value |= 1 << _shift("BTH", "ts")
        if self.pad is None:
            given = self.getlayer(Pad)
            pad = -(len(pay) - tail) % _WORD if given is None else len(given.load)
            value |= (pad & 3) << _shift("BTH", "pad")
            if given is None:
                pay = pay[: len(pay) - tail] + bytes(pad) + pay[len(pay) - tail :]
        built = value.to_bytes(len(pkt)) + pay
        if tail and last.crc is None:
            built = built[:-ICRC_BYTES] + _icrc(self, built[:-ICRC_BYTES])
        return built


class _Reth(_Header):
    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        """Fill in ``dma_length``: the payload below it."""
        if self.dma_length is None:
            raw = self.getlayer(Raw)
            length = 0 if raw is None else len(raw.load)
            pkt = pkt[:-4] + length.to_bytes(4)
        return pkt + pay


def _field(header: str, field: tables.Field) -> Field[Any, Any]:
    key = (header, field.name)
    default = _DEFAULTS.get(key, 0)
    names = TABLE.enumerations.get(ENUMERATED.get(key, ""))
    if key == ("BTH", "opcode"):
        names = {opcode.name: number for number, opcode in TABLE.opcodes.items()}
    if names is not None:
        return BitEnumField(field.name, default, field.bits, {number: name for name, number in names.items()})
    if key in SIGNED:
        return SignedShortField(field.name, default)
    return (XBitField if field.name in HEXADECIMAL else BitField)(field.name, default, field.bits)


def _dispatch(cls: type[_Header], _pkt: bytes | None = None, *_: Any, **__: Any) -> type[Packet]:
    """The layer for some bytes: raw where they are too few."""
    return Raw if _pkt is not None and len(_pkt) < cls.size else cls


def _layer(name: str) -> type[_Header]:
    base = {"BTH": _Bth, "RETH": _Reth}.get(name, _Header)
    header = TABLE.headers[name]
    body = {
        "__doc__": f"{name}: {header.bytes} bytes.",
        "__module__": __name__,
        "name": name,
        "header": header,
        "size": header.bytes,
        # Of each class itself: scapy asks for none that is inherited.
        "dispatch_hook": classmethod(_dispatch),
        "fields_desc": [_field(name, field) for field in header.fields.values()],
    }
    return cast("type[_Header]", type(name, (base,), body))


#: Layer of each header of the table.
LAYERS: Final[dict[str, type[_Header]]] = {name: _layer(name) for name in TABLE.headers}
BTH, METH, TSETH, RETH = (LAYERS[name] for name in ("BTH", "METH", "TSETH", "RETH"))
ImmDt, AETH, SETH, CC_STATE = (LAYERS[name] for name in ("ImmDt", "AETH", "SETH", "CC_STATE"))
NETH, PETH, ERTH, EETH = (LAYERS[name] for name in ("NETH", "PETH", "ERTH", "EETH"))

# Before what others bind: an EV's source port may be anybody's, 53 is DNS's.
UDP.payload_guess.insert(0, ({"dport": TABLE.choices.udp_destination_port}, BTH))
bind_top_down(UDP, BTH, dport=TABLE.choices.udp_destination_port, sport=0, chksum=0)


def carrying(ev: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Arguments for the outer ``IPv6``, the inner ``IPv6`` and ``UDP`` that make a packet carry an entropy value."""
    choices = TABLE.choices
    label = {"fl": ev & 0xFFFFF if choices.ev_flow_label == "low20" else ev >> 16 & 0xFFFF}
    outer = label if choices.ev_flow_label_in in ("outer", "both") else {}
    inner = label if choices.ev_flow_label_in in ("inner", "both") else {}
    return dict(outer), dict(inner), {"sport": ev & 0xFFFF}


def traffic_class(role: str, ecn: int = 0) -> int:
    """``tc`` of the outer ``IPv6`` for a role of the table, such as ``TRIMMABLE``, and an ECN field."""
    return TABLE.dscp[role] << 2 | ecn


def headers_of(opcode: str, *, stamped: bool) -> Packet:
    """A BTH and the headers that follow it for an opcode, all at their defaults."""
    number = TABLE.opcode(opcode)
    made: Packet = BTH(opcode=number)
    for name in TABLE.opcodes[number].headers:
        if name != "TSETH" or stamped:
            made /= LAYERS[name]()
    return made


def _shift(header: str, field: str) -> int:
    found = TABLE.headers[header].fields[field]
    return 8 * TABLE.headers[header].bytes - found.offset - found.bits


def _bth_below(layer: Packet) -> Packet | None:
    below: Packet | None = layer
    while below is not None and not isinstance(below, _Bth):
        below = below.underlayer
    return below


def _following(layer: _Header) -> type[_Header] | None:
    """The layer that the BTH announces after this one; None where payload or ICRC come."""
    bth = _bth_below(layer)
    opcode = None if bth is None else TABLE.opcodes.get(bth.opcode)
    if bth is None or opcode is None:
        return None
    names = ["BTH", *(name for name in opcode.headers if name != "TSETH" or bth.ts)]
    at = names.index(layer.header.name) + 1
    return LAYERS[names[at]] if at < len(names) else None


def _taken(kind: type[Packet], data: bytes, below: Packet) -> Packet:
    return kind(data, _internal=1, _underlayer=below)


def _attach_rest(layer: Packet, data: bytes) -> None:
    if len(data) < ICRC_BYTES:
        layer.add_payload(Raw(data))
        return
    bth = _bth_below(layer)
    body, crc = data[:-ICRC_BYTES], data[-ICRC_BYTES:]
    pad = min(bth.pad, len(body)) if bth is not None else 0
    for part in (Raw(body[: len(body) - pad]), Pad(load=body[len(body) - pad :])):
        if part.load:
            layer.add_payload(part)
    layer.add_payload(ICRC(crc))


def _icrc(bth: Packet, built: bytes) -> bytes:
    """The four bytes of the ICRC; zeros where no IPv6 header is below."""
    udp = bth.underlayer
    ip = None if udp is None else udp.underlayer
    if not isinstance(udp, UDP) or not isinstance(ip, IPv6):
        return bytes(ICRC_BYTES)
    # The headers below are built after this one: their own fields now, lengths left out filled in.
    head = bytearray(ip.self_build()[:IPV6_BYTES])
    length = len(udp.self_build()) + len(built) + ICRC_BYTES
    if ip.plen is None:
        head[4:6] = length.to_bytes(2)
    ports = bytearray(udp.self_build())
    if udp.len is None:
        ports[4:6] = length.to_bytes(2)
    head[0:4] = bytes([head[0] | 0x0F, 0xFF, 0xFF, 0xFF])
    head[7] = 0xFF
    ports[6:8] = b"\xff\xff"
    masked = bytes(8 * [0xFF]) + bytes(head) + bytes(ports) + built[:4] + b"\xff" + built[5:]
    return zlib.crc32(masked).to_bytes(ICRC_BYTES, "little")
