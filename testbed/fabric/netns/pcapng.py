"""The pcapng file format (draft-ietf-opsawg-pcapng), as far as captures on ports need it; standard library only.

One section in native byte order, one interface per port with nanosecond stamps, enhanced packet blocks with the
direction, and at the end one statistics block per interface with what its ring dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_MAGIC = 0x1A2B3C4D
_LINKTYPE_ETHERNET = 1
_END_OF_OPTIONS, _COMMENT = 0, 1
_IF_NAME, _IF_TSRESOL = 2, 9
_EPB_FLAGS = 2
_ISB_RECEIVED, _ISB_DROPPED = 4, 5
_INBOUND, _OUTBOUND = 1, 2

_HEAD = struct.Struct("=II")
_EPB = struct.Struct("=IIIIIII")
_FLAGS_AND_END = struct.Struct("=HHIHHI")


class PcapngError(ValueError):
    """The bytes are not such a file."""


@dataclass(frozen=True, slots=True)
class Record:
    """A packet on a port.

    Attributes:
        port: in the lab's names, ``h0:p3``.
        t_ns: the kernel's CLOCK_REALTIME stamp.
        outgoing: sent out of the port, rather than received on it.
        length: bytes it had, from the Ethernet header on.
        data: what was captured of it.
    """

    port: str
    t_ns: int
    outgoing: bool
    length: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PortTotals:
    """What was captured on one port, and packets dropped because the ring was full.

    Ports of one node share a ring: what it dropped is told with the first of them.
    """

    port: str
    received: int
    dropped: int


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return _HEAD.pack(kind, length) + body + struct.pack("=I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + value + bytes(-len(value) % 4)


def head(ports: list[str], snap: int) -> bytes:
    """Section header and interface blocks; ``snap`` is the most bytes kept of a packet, 0 for all."""
    out = _block(_SECTION, struct.pack("=IHHq", _MAGIC, 1, 0, -1))
    for port in ports:
        options = _option(_IF_NAME, port.encode()) + _option(_IF_TSRESOL, b"\x09") + _option(_END_OF_OPTIONS, b"")
        out += _block(_INTERFACE, struct.pack("=HHI", _LINKTYPE_ETHERNET, 0, snap) + options)
    return out


def packet(interface: int, t_ns: int, outgoing: bool, length: int, data: bytes | memoryview) -> bytes:
    """An enhanced packet block."""
    captured = len(data)
    padding = -captured % 4
    total = _EPB.size + captured + padding + _FLAGS_AND_END.size
    direction = _OUTBOUND if outgoing else _INBOUND
    return b"".join(
        (
            _EPB.pack(_PACKET, total, interface, t_ns >> 32, t_ns & 0xFFFFFFFF, captured, length),
            data,
            bytes(padding),
            _FLAGS_AND_END.pack(_EPB_FLAGS, 4, direction, 0, 0, total),
        )
    )


def statistics(interface: int, t_ns: int, received: int, dropped: int) -> bytes:
    """An interface statistics block."""
    shared = b"ports of one node share a ring: the first port has the drops of all"
    options = (
        _option(_COMMENT, shared)
        + _option(_ISB_RECEIVED, struct.pack("=Q", received))
        + _option(_ISB_DROPPED, struct.pack("=Q", dropped))
        + _option(_END_OF_OPTIONS, b"")
    )
    return _block(_STATISTICS, struct.pack("=III", interface, t_ns >> 32, t_ns & 0xFFFFFFFF) + options)


def read(stream: BinaryIO) -> Iterator[Record | PortTotals]:
    """The packets and totals of a stream written by this module, as they come.

    A stream that stops short, as one does whose writer was killed, ends at its last whole block. Raises PcapngError
    for anything that is not such a stream.
    """
    ports: list[str] = []
    while True:
        start = stream.read(_HEAD.size)
        if len(start) < _HEAD.size:
            return
        kind, length = _HEAD.unpack(start)
        if length < 12 or length % 4:
            raise PcapngError(f"a block of {length} bytes")
        body = stream.read(length - _HEAD.size)
        if len(body) < length - _HEAD.size:
            return
        if struct.unpack_from("=I", body, len(body) - 4)[0] != length:
            raise PcapngError("a block's two lengths differ")
        body = body[:-4]
        if kind == _SECTION:
            if struct.unpack_from("=I", body)[0] != _MAGIC:
                raise PcapngError("another byte order, or no pcapng")
            ports = []
        elif kind == _INTERFACE:
            ports.append(_options(body[8:]).get(_IF_NAME, b"").decode(errors="replace"))
        elif kind == _PACKET:
            yield _record(body, ports)
        elif kind == _STATISTICS:
            number = struct.unpack_from("=I", body)[0]
            options = _options(body[12:])
            received, dropped = (
                struct.unpack("=Q", options.get(code, bytes(8)))[0] for code in (_ISB_RECEIVED, _ISB_DROPPED)
            )
            yield PortTotals(ports[number], received, dropped)


def _record(body: bytes, ports: list[str]) -> Record:
    interface, high, low, captured, length = struct.unpack_from("=IIIII", body)
    if interface >= len(ports) or 20 + captured > len(body):
        raise PcapngError("a packet block that is too short or of no interface")
    flags = _options(body[20 + captured + -captured % 4 :]).get(_EPB_FLAGS, bytes(4))
    outgoing = struct.unpack("=I", flags)[0] & 3 == _OUTBOUND
    return Record(ports[interface], high << 32 | low, outgoing, length, body[20 : 20 + captured])


def _options(data: bytes) -> dict[int, bytes]:
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        code, length = struct.unpack_from("=HH", data, offset)
        if code == _END_OF_OPTIONS:
            break
        found[code] = data[offset + 4 : offset + 4 + length]
        offset += 4 + length + -length % 4
    return found
