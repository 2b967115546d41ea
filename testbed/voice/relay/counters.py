"""What a relay counts, in memory that all its processes share: each worker writes its own row, anybody reads."""

from __future__ import annotations

import mmap
import os
from enum import IntEnum, StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from testbed.voice.framing import Fault
from testbed.voice.stun import Kind
from testbed.voice.ufrag import Refusal


class Direction(IntEnum):
    """Which way: from clients inward, or outward to them."""

    INWARD = 0
    OUTWARD = 1


class Drop(StrEnum):
    """Why a datagram went no further; with those of :class:`Refusal` and :class:`Fault` all there are."""

    EMPTY_OR_OVERSIZED = "size"
    KIND = "kind"
    STUN = "stun"
    UNKNOWN_CLIENT = "unknown_client"
    NO_ROUTE = "no_route"
    SOURCE = "source"
    SOURCE_LIMIT = "source_limit"
    DRAINING = "draining"
    BUSY = "busy"
    HELD_TOO_LONG = "held_too_long"
    SEND = "send"
    STRANGER = "stranger"


#: Every reason by which datagrams are dropped and counted.
REASONS: Final[tuple[str, ...]] = tuple(str(each) for kind in (Drop, Refusal, Fault) for each in kind)
_REASON_AT: Final = {reason: at for at, reason in enumerate(REASONS)}


class Word(IntEnum):
    """Single figures of a worker."""

    PID = 0
    BEAT_MS = 1
    SESSIONS = 2
    HELD = 3
    STARTS = 4
    SESSIONS_MADE = 5
    SESSIONS_EXPIRED = 6
    SESSIONS_EVICTED = 7
    SESSIONS_ADOPTED = 8
    STORE_DROPPED = 9
    CONFIGURATION = 10
    DRAINING = 11
    RELAYED_MS = 12


class StoreWord(IntEnum):
    """Figures of the store's process."""

    PID = 0
    STATE = 1
    WRITTEN = 2
    DROPPED = 3
    LOOKUPS = 4
    FOUND = 5
    CONNECTS = 6
    STARTS = 7


class StoreState(IntEnum):
    """How the store is."""

    NONE = 0
    UP = 1
    DOWN = 2


_KINDS: Final = len(Kind)
_WORDS: Final = 16
_PACKETS_AT: Final = _WORDS
_BYTES_AT: Final = _PACKETS_AT + 2 * _KINDS
_SENT_AT: Final = _BYTES_AT + 4
_DROPS_AT: Final = _SENT_AT + 2
_ROW: Final = 128
assert _DROPS_AT + len(REASONS) <= _ROW

Words = npt.NDArray[np.uint64]


class WorkerCounters:
    """One worker's row.

    Attributes:
        words: by :class:`Word`.
        packets: shape (2, kinds): received, by :class:`Direction` and :class:`Kind`; outward all are of kind 0.
        octets: shape (2, 2): payload bytes by direction: received, sent.
        sent: shape (2,): datagrams sent on.
        drops: by index of :data:`REASONS`.
    """

    def __init__(self, row: Words) -> None:
        self.words = row[:_WORDS]
        self.packets = row[_PACKETS_AT:_BYTES_AT].reshape(2, _KINDS)
        self.octets = row[_BYTES_AT:_SENT_AT].reshape(2, 2)
        self.sent = row[_SENT_AT:_DROPS_AT]
        self.drops = row[_DROPS_AT : _DROPS_AT + len(REASONS)]

    def drop(self, reason: str, count: int = 1) -> None:
        """Count datagrams that went no further."""
        self.drops[_REASON_AT[reason]] += np.uint64(count)

    def passed(self, way: Direction, received: int, forwarded: int, count: int, sent: int) -> None:
        """Count ``count`` datagrams handed to the kernel, ``sent`` of which it took, and the bytes of both sides."""
        self.octets[way, 0] += np.uint64(received)
        self.octets[way, 1] += np.uint64(forwarded)
        self.sent[way] += np.uint64(sent)
        if sent < count:
            self.drop(Drop.SEND, count - sent)

    def dropped(self, reason: str) -> int:
        """How many so far."""
        return int(self.drops[_REASON_AT[reason]])

    def add(self, word: Word, count: int = 1) -> None:
        """Add to a figure."""
        self.words[word] += np.uint64(count)

    def set(self, word: Word, value: int) -> None:
        """Set a figure."""
        self.words[word] = value


class Counters:
    """All rows: one per worker, one of the store."""

    def __init__(self, fd: int, workers: int) -> None:
        """Map what :meth:`make` made."""
        self._map = mmap.mmap(fd, (workers + 1) * _ROW * 8)
        rows = np.frombuffer(self._map, np.uint64).reshape(workers + 1, _ROW)
        self.workers = [WorkerCounters(rows[at]) for at in range(workers)]
        self.store: Words = rows[workers]

    @staticmethod
    def make(workers: int) -> int:
        """A memfd of zeros."""
        fd = os.memfd_create("relay-counters", os.MFD_CLOEXEC)
        os.ftruncate(fd, (workers + 1) * _ROW * 8)
        return fd
