"""Where each field of a packet lies, worked out from the table.

    outer IPv6 40 | inner IPv6 40 | UDP 8 | BTH 12 | headers | payload | pad to 4 | ICRC 4

A WRITE's fields are whole bytes, but for some bits of the BTH: between rows and packets the data path permutes bytes.
Control packets, some per batch, are packed and unpacked as one long integer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError
from testbed.mrc.rows import Flag
from testbed.mrc.wire.table import Field, Table

OUTER_AT, INNER_AT, UDP_AT, BTH_AT, AFTER_BTH = 0, 40, 80, 88, 100
#: Where the three lengths are, 16 bits each.
OUTER_LENGTH, INNER_LENGTH, UDP_LENGTH = OUTER_AT + 4, INNER_AT + 4, UDP_AT + 4
#: The most that headers of a WRITE take, from the outer IPv6 header to the immediate.
HEAD_BYTES = 128
ICRC_BYTES = 4
#: Of an IPv6 header's bytes.
NEXT_HEADER = 6
UDP_DESTINATION = UDP_AT + 2
NEXT_HEADER_IPV6, NEXT_HEADER_UDP = 41, 17
#: The default partition, with full membership (IBTA).
P_KEY = 0xFFFF

#: BTH field of each flag of a row.
FLAG_FIELDS = {Flag.A: "a", Flag.R: "r", Flag.RTX: "rtx", Flag.TS: "ts", Flag.SE: "se"}
#: Row column of each field of a WRITE that a row holds as it is.
WRITE_COLUMNS = {
    "BTH.opcode": "opcode",
    "BTH.psn": "psn",
    "METH.rqmsn": "rqmsn",
    "METH.msn": "msn",
    "TSETH.tx_timestamp": "stamp",
    "RETH.va": "va",
    "RETH.rkey": "rkey",
    "RETH.dma_length": "dma_length",
    "ImmDt.immediate": "imm",
}


@dataclass(frozen=True)
class Shape:
    """The headers of one kind of packet.

    Attributes:
        header_bytes: from the outer IPv6 header to the payload.
        fields: by ``HEADER.field``, with offsets from the packet's first bit.
    """

    header_bytes: int
    fields: Mapping[str, Field]

    def span(self, name: str) -> range:
        """The bytes of a field that fills whole bytes. Raises ``UsageError`` for one that does not."""
        field = self.fields[name]
        if field.offset % 8 or field.bits % 8:
            raise UsageError(
                "a field of the wire table is not made of whole bytes",
                where=name,
                found=f"{field.bits} bits at bit {field.offset} of the packet",
                expected="bytes, for the data path copies it as such",
            )
        return range(field.offset // 8, (field.offset + field.bits) // 8)

    def within(self, name: str) -> tuple[int, int]:
        """Byte, and bits to the right of it there, of a field that lies within one. Raises ``UsageError``."""
        field = self.fields[name]
        byte, bit = divmod(field.offset, 8)
        if bit + field.bits > 8:
            raise UsageError("a field of the wire table crosses bytes", where=name, expected="a field within one byte")
        return byte, 8 - bit - field.bits

    def put(self, row: npt.NDArray[np.uint8], name: str, value: int) -> None:
        """Set a field in a ``(HEAD_BYTES,)`` row in which it is zero."""
        field = self.fields[name]
        bits = value << (8 * len(row) - field.offset - field.bits)
        row |= np.frombuffer(bits.to_bytes(len(row), "big"), np.uint8)


def shape(table: Table, headers: Sequence[str], *, stamped: bool) -> Shape:
    """The shape of packets with these headers after the BTH; without ``stamped`` there is no TSETH among them."""
    fields: dict[str, Field] = {}
    at = BTH_AT
    for name in ("BTH", *headers):
        if name == "TSETH" and not stamped:
            continue
        header = table.headers[name]
        for field in header.fields.values():
            fields[f"{name}.{field.name}"] = replace(field, offset=8 * at + field.offset)
        at += header.bytes
    return Shape(at, fields)


def write_shapes(table: Table) -> dict[tuple[bool, bool], Shape]:
    """The shapes of WRITEs, by whether there is a TSETH and whether there is an immediate."""
    return {
        (stamped, "ImmDt" in opcode.headers): shape(table, opcode.headers, stamped=stamped)
        for opcode in table.opcodes.values()
        if opcode.payload
        for stamped in (False, True)
    }


def immediates(table: Table) -> npt.NDArray[np.bool_]:
    """``(256,)``: whether packets with this opcode hold an immediate."""
    with_imm = np.zeros(256, np.bool_)
    for opcode in table.opcodes.values():
        with_imm[opcode.number] = "ImmDt" in opcode.headers
    return with_imm


def head_views(heads: npt.NDArray[np.uint8], start: int, sizes: Iterable[int]) -> dict[int, list[memoryview]]:
    """For each size of headers, the bytes of every row from ``start`` to it."""
    flat = memoryview(heads.data).cast("B")
    stride = heads.shape[1]
    return {size: [flat[at + start : at + size] for at in range(0, len(flat), stride)] for size in sizes}


def column_bytes(dtype: np.dtype[np.void], column: str) -> list[int]:
    """The bytes of a row that a column fills, the most significant one first."""
    described = dtype.fields
    assert described is not None
    item, first = described[column][:2]
    octets = list(range(first, first + item.itemsize))
    return octets if sys.byteorder == "big" else octets[::-1]


def byte_pairs(shape: Shape, dtype: np.dtype[np.void], columns: Mapping[str, str]) -> list[tuple[int, int]]:
    """Byte of the packet and byte of the row that hold the same, for the columns whose fields the shape has.

    A column may be wider than its field; its more significant bytes are then in no pair.
    """
    pairs: list[tuple[int, int]] = []
    for name, column in columns.items():
        if name in shape.fields:
            wire, row = shape.span(name), column_bytes(dtype, column)
            pairs += zip(wire, row[len(row) - len(wire) :], strict=True)
    return pairs


class Bits:
    """Some fields of consecutive headers, as one big-endian integer.

    Args:
        table: the wire format.
        headers: names of the headers, from the first byte on.
        wanted: the fields, ``HEADER.field``, in the order in which values are given and returned.
        signed: those of them that are two's complement.
    """

    def __init__(self, table: Table, headers: Sequence[str], wanted: Sequence[str], signed: Sequence[str] = ()) -> None:
        self.bytes = sum(table.headers[name].bytes for name in headers)
        self._wanted = tuple(wanted)
        self._fields: list[tuple[int, int, int]] = []
        self._ranges: list[tuple[int, int]] = []
        for name in wanted:
            bits = table.field(*name.split(".")).bits
            half = 1 << bits - 1 if name in signed else 0
            self._fields.append((self._shift(table, headers, name), (1 << bits) - 1, half))
            self._ranges.append((-half, (1 << bits) - 1 - half))

    def _shift(self, table: Table, headers: Sequence[str], name: str) -> int:
        header, _, field_name = name.partition(".")
        before = sum(table.headers[earlier].bytes for earlier in headers[: headers.index(header)])
        field = table.field(header, field_name)
        return 8 * (self.bytes - before) - field.offset - field.bits

    def pack(self, values: Sequence[int]) -> int:
        """The headers with these fields and zeros elsewhere. Raises ``ValueError`` where a value does not fit."""
        packed = 0
        for value, (shift, mask, _), (low, high) in zip(values, self._fields, self._ranges, strict=True):
            if not low <= value <= high:
                raise ValueError(f"a field of {self._wanted} is to hold {value}, not {low} to {high}")
            packed |= (value & mask) << shift
        return packed

    def unpack(self, packed: int) -> list[int]:
        """The values of the fields."""
        return [((packed >> shift & mask) ^ half) - half for shift, mask, half in self._fields]
