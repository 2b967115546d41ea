"""Reads captures as they come: pcap and pcapng in either byte order, gzipped or not, one packet in memory at a time."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

from testbed.errors import InfrastructureError, UsageError

#: Of a record. libpcap's own limit is 256 KiB; a larger number comes from a damaged file.
_MOST_BYTES: Final = 1 << 24
_SKIP: Final = 1 << 16

_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER: Final = 0x1A2B3C4D
_END_OF_OPTIONS, _RESOLUTION, _OFFSET = 0, 9, 14
#: First four bytes → byte order, and nanoseconds of a stamp's fraction.
_PCAP: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}


@dataclass(frozen=True, slots=True)
class Captured:
    """A packet as a capture holds it.

    Attributes:
        number: its place in the file, from 1.
        t_ns: its stamp, nanoseconds since 1970; 0 where the file has none.
        link_type: what ``data`` begins with, a LINKTYPE_ number (www.tcpdump.org/linktypes.html).
        length: bytes it had on the wire.
        data: what was captured of it.
    """

    number: int
    t_ns: int
    link_type: int
    length: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap: int
    per_second: int
    offset_ns: int


class CaptureFile:
    """The packets of a stream, in its order.

    Attributes:
        cut: the stream ended within a packet, as it does when the process that wrote it was killed.
    """

    def __init__(self, stream: BinaryIO, where: str) -> None:
        self._stream = stream
        self._where = where
        self._read = 0
        self.cut = False

    def __iter__(self) -> Iterator[Captured]:
        """Raises ``UsageError`` where the stream is no capture, or at the first damage, after what came before it."""
        start = self._some(4)
        if start[:2] == b"\x1f\x8b":
            self._stream = cast("BinaryIO", gzip.GzipFile(fileobj=_Rejoined(start, self._stream)))
            start = self._some(4)
        if start in _PCAP:
            yield from self._pcap(*_PCAP[start])
        elif start == struct.pack(">I", _SECTION):
            yield from self._pcapng(start)
        else:
            raise UsageError(
                "this is no capture",
                where=self._where,
                found=f"{start!r} at its beginning" if start else "an empty file",
                expected="pcap or pcapng",
            )

    def _damaged(self, what: str) -> UsageError:
        return UsageError(f"this capture is damaged after packet {self._read}", where=self._where, found=what)

    def _some(self, count: int) -> bytes:
        """So many bytes, or fewer where the stream ends."""
        try:
            return self._stream.read(count)
        except EOFError:
            self.cut = True
            return b""
        except (gzip.BadGzipFile, zlib.error) as error:
            raise self._damaged(str(error)) from None
        except OSError as error:
            raise InfrastructureError(
                "this capture cannot be read", where=self._where, found=error.strerror or str(error)
            ) from None

    def _exactly(self, count: int) -> bytes | None:
        """So many bytes; None where the stream ends before, which is told by ``cut`` unless it ended at once."""
        data = self._some(count)
        if len(data) == count:
            return data
        self.cut = self.cut or bool(data)
        return None

    def _body(self, count: int) -> bytes | None:
        data = self._exactly(count)
        self.cut = self.cut or data is None
        return data

    def _pcap(self, order: str, fraction_ns: int) -> Iterator[Captured]:
        head = self._body(20)
        if head is None:
            return
        link_type = struct.unpack(f"{order}HHiIII", head)[5] & 0xFFFF
        record = struct.Struct(f"{order}IIII")
        while (start := self._exactly(record.size)) is not None:
            seconds, fraction, captured, length = record.unpack(start)
            if captured > _MOST_BYTES:
                raise self._damaged(f"a packet of {captured} bytes")
            data = self._body(captured)
            if data is None:
                return
            self._read += 1
            yield Captured(self._read, seconds * 10**9 + fraction * fraction_ns, link_type, length, data)

    def _pcapng(self, start: bytes) -> Iterator[Captured]:
        order = ">"
        interfaces: list[_Interface] = []
        head: bytes | None = start + (self._body(4) or b"")
        while head is not None and len(head) == 8:
            kind = struct.unpack(f"{order}I", head[:4])[0]
            if kind == _SECTION:
                order = self._order()
                interfaces = []
            length = struct.unpack(f"{order}I", head[4:])[0]
            # The byte order mark has been read of a section already.
            rest = length - 8 - (4 if kind == _SECTION else 0)
            if length % 4 or rest < 4:
                raise self._damaged(f"a block of {length} bytes")
            if kind in (_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET):
                if length > _MOST_BYTES:
                    raise self._damaged(f"a block of {length} bytes")
                body = self._body(rest)
                if body is None:
                    return
                if kind == _INTERFACE:
                    interfaces.append(self._interface(body[:-4], order))
                else:
                    yield self._packet(kind, body[:-4], order, interfaces)
            elif not self._skip(rest):
                return
            head = self._exactly(8)

    def _order(self) -> str:
        mark = self._body(4) or b""
        for order in "<>":
            if mark == struct.pack(f"{order}I", _BYTE_ORDER):
                return order
        raise self._damaged(f"{mark!r} as the byte order of a section")

    def _skip(self, count: int) -> bool:
        while count:
            if self._body(min(count, _SKIP)) is None:
                return False
            count -= min(count, _SKIP)
        return True

    def _interface(self, body: bytes, order: str) -> _Interface:
        if len(body) < 8:
            raise self._damaged("an interface block that is too short")
        link_type, _, snap = struct.unpack_from(f"{order}HHI", body)
        options = _options(body[8:], order)
        code = options.get(_RESOLUTION, b"\x06")[:1] or b"\x06"
        base, exponent = (2, code[0] & 0x7F) if code[0] & 0x80 else (10, code[0])
        offset = options.get(_OFFSET, b"")
        seconds = struct.unpack(f"{order}q", offset)[0] if len(offset) == 8 else 0
        return _Interface(link_type, snap, base**exponent, seconds * 10**9)

    def _packet(self, kind: int, body: bytes, order: str, interfaces: list[_Interface]) -> Captured:
        number, stamp = 0, None
        if kind == _SIMPLE_PACKET and len(body) >= 4 and interfaces:
            at, length = 4, struct.unpack_from(f"{order}I", body)[0]
            captured = min(length, interfaces[0].snap or length)
        elif kind != _SIMPLE_PACKET and len(body) >= 20:
            number, high, low, captured, length = struct.unpack_from(f"{order}IIIII", body)
            at, stamp = 20, high << 32 | low
            if kind == _OLD_PACKET:
                number = number >> 16 if order == ">" else number & 0xFFFF
        else:
            raise self._damaged("a packet block that is too short or of no interface")
        if number >= len(interfaces):
            raise self._damaged(f"a packet of interface {number}, of {len(interfaces)}")
        if at + captured > len(body):
            raise self._damaged(f"a packet of {captured} bytes in a block of {len(body) + 12}")
        of = interfaces[number]
        t_ns = 0 if stamp is None else stamp * 10**9 // of.per_second + of.offset_ns
        self._read += 1
        return Captured(self._read, t_ns, of.link_type, length, body[at : at + captured])


class _Rejoined(io.RawIOBase):
    """A stream of which some bytes have been read already; a pipe cannot be rewound."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._start:
            return self._rest.read(size)
        taken = self._start if size < 0 else self._start[:size]
        self._start = self._start[len(taken) :]
        return taken


def _options(data: bytes, order: str) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from(f"{order}HH", data, at)
        if code == _END_OF_OPTIONS:
            break
        found.setdefault(code, data[at + 4 : at + 4 + length])
        at += 4 + length + -length % 4
    return found
