"""Netlink attributes and messages, written and read."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Set

HEAD = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

Attributes = dict[int, bytes]


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded as the next needs it."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def attributes(data: memoryview, wanted: Set[int] | None = None) -> Attributes:
    """The attributes in a buffer, nested ones as raw bytes; ``wanted``: only these, not reading beyond the last."""
    found: Attributes = {}
    offset, end = 0, len(data) - 4
    unpack = _ATTRIBUTE.unpack_from
    while offset <= end:
        length, kind = unpack(data, offset)
        if length < 4:
            break
        kind &= 0x3FFF
        if wanted is None or kind in wanted:
            found[kind] = bytes(data[offset + 4 : offset + length])
            if wanted is not None and len(found) == len(wanted):
                break
        offset += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """(type, body) of each netlink message in a buffer."""
    view = memoryview(data)
    offset = 0
    while offset + HEAD.size <= len(view):
        length, kind, _, _, _ = HEAD.unpack_from(view, offset)
        yield kind, view[offset + HEAD.size : offset + length]
        offset += (length + 3) & ~3
