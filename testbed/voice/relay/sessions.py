"""The session map: which transceiver a client's address and port belongs to. Shared by all workers of a relay.

Each worker has a part of it that it alone writes, and that outlives it; all read all parts. A part is a table of sets
of :data:`WAYS` rows; a client's set follows from a keyed hash of its address, so that nobody outside can aim at one.
Its size is fixed when the relay starts; where a set is full, the client longest silent makes room.

Nothing locks. A row holds a check, a keyed hash of client and route: a row that is read while it is written, or whose
writer died in the middle, does not fit its check and is none.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from testbed.voice.addresses import PACKED_BYTES

WAYS: Final = 16
_SECRET_BYTES: Final = 32

#: A row: client (port, address), cluster and transceiver as one number, CLOCK_MONOTONIC in ms of the last datagram,
#: the random part of the ufrag, the check. A client of zeros is no row.
ROW = np.dtype(
    [
        ("client", f"V{PACKED_BYTES}"),
        ("pad", "V6"),
        ("route", "<u8"),
        ("seen_ms", "<u8"),
        ("call", "<u8"),
        ("check", "<u8"),
        ("spare", "<u8"),
    ]
)
assert ROW.itemsize == 64
_NO_ONE: Final = bytes(PACKED_BYTES)


class Found(NamedTuple):
    """A row that fits its check.

    Attributes:
        client: port and address.
        route: see :func:`route_of`.
        call: the random part of its ufrag.
        seen_ms: CLOCK_MONOTONIC of its last datagram.
    """

    client: bytes
    route: int
    call: int
    seen_ms: int


def route_of(cluster: int, transceiver: int) -> int:
    """Cluster and transceiver as one number."""
    return cluster << 24 | transceiver


def numbers_of(route: int) -> tuple[int, int]:
    """And back."""
    return route >> 24, route & 0xFFFFFF


class SessionMap:
    """All parts of the map.

    Attributes:
        rows: shape (workers, sets, ways).
    """

    def __init__(self, fd: int, workers: int, secret: bytes) -> None:
        """Map what :meth:`make` made. ``secret``: 32 bytes, the same for all that share it."""
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.rows: npt.NDArray[np.void] = np.frombuffer(self._map, ROW).reshape(workers, -1, WAYS)
        self._clients = self.rows["client"]
        self._secret = secret

    @staticmethod
    def make(workers: int, sessions: int) -> int:
        """A memfd for at least twice ``sessions`` rows a worker, so that sets seldom fill before the part does."""
        sets = max(1, -(-2 * sessions // WAYS))
        fd = os.memfd_create("relay-sessions", os.MFD_CLOEXEC)
        os.ftruncate(fd, workers * sets * WAYS * ROW.itemsize)
        return fd

    @property
    def sets(self) -> int:
        """Sets of a part."""
        return int(self.rows.shape[1])

    def set_of(self, client: bytes) -> int:
        """Which set a client is in."""
        digest = hashlib.blake2s(client, digest_size=8, key=self._secret, person=b"set").digest()
        return int.from_bytes(digest, "little") % self.sets

    def check_of(self, client: bytes, route: int, call: int) -> int:
        """What proves that a row was written to its end."""
        whole = client + route.to_bytes(8, "little") + call.to_bytes(8, "little")
        return int.from_bytes(hashlib.blake2s(whole, digest_size=8, key=self._secret, person=b"row").digest(), "little")

    def read(self, row: np.void) -> Found | None:
        """One row, or None where it is none."""
        client, _, route, seen_ms, call, check, _ = row.item()
        client = bytes(client)
        if client == _NO_ONE or check != self.check_of(client, route, call):
            return None
        return Found(client, route, call, seen_ms)

    def write(self, part: int, place: int, found: Found) -> None:
        """Write a row of the writer's own part. ``place`` counts rows of the part."""
        client, route, call, seen_ms = found
        row = (client, b"", route, seen_ms, call, self.check_of(client, route, call), 0)
        self.rows[part].reshape(-1)[place] = row

    def clear(self, part: int, place: int) -> None:
        """Empty a row."""
        self.rows[part].reshape(-1)[place : place + 1].view(np.uint64)[:] = 0

    def find(self, client: bytes, oldest_ms: int) -> Found | None:
        """The newest row of a client in any part, not silent since before ``oldest_ms``; None where there is none."""
        at = self.set_of(client)
        wanted = np.frombuffer(client, f"V{PACKED_BYTES}")[0]
        best: Found | None = None
        for part, way in np.argwhere(self._clients[:, at] == wanted).tolist():
            found = self.read(self.rows[part, at, way].copy())
            if found and found.client == client and found.seen_ms >= oldest_ms:
                best = found if best is None or found.seen_ms > best.seen_ms else best
        return best


def new_secret() -> bytes:
    """For a new map."""
    return os.urandom(_SECRET_BYTES)
