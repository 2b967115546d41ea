"""What a worker and the store's process say to each other: one message, many sessions."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from testbed.voice.addresses import PACKED_BYTES

WRITE: Final = b"W"
LOOKUP: Final = b"L"
#: Sessions in a message, at most.
MOST_ENTRIES: Final = 256
_NOT_KNOWN: Final = 2**64 - 1
_ENTRY: Final = struct.Struct(f"={PACKED_BYTES}sQQ")


class Entry(NamedTuple):
    """A session: port and address of the client, cluster and transceiver as one number, random part of the ufrag."""

    client: bytes
    route: int
    call: int

    @property
    def known(self) -> bool:
        """Whether there is such a session."""
        return self.route != _NOT_KNOWN


def not_known(client: bytes) -> Entry:
    """The answer for a client of which nothing is known."""
    return Entry(client, _NOT_KNOWN, 0)


def pack_entries(entries: Iterable[Entry]) -> bytes:
    """An answer."""
    return b"".join(_ENTRY.pack(*entry) for entry in entries)


def unpack_entries(message: bytes) -> Iterator[Entry]:
    """Of :func:`pack_entries`, or of a write without its first byte."""
    return (Entry(*each) for each in _ENTRY.iter_unpack(message))


def pack_write(entries: Iterable[Entry]) -> bytes:
    """Sessions to keep."""
    return WRITE + pack_entries(entries)


def pack_lookup(clients: Iterable[bytes]) -> bytes:
    """Clients to look for."""
    return LOOKUP + b"".join(clients)


def unpack_lookup(message: bytes) -> list[bytes]:
    """Of a lookup without its first byte."""
    return [message[at : at + PACKED_BYTES] for at in range(0, len(message), PACKED_BYTES)]
