"""What a voice process saw of RTP, kept as rows: packets sent and received, what was played out, steps of calls.

A log is a folder. Each process that writes there adds a set of three files, ``<stem>.packets``, ``<stem>.frames`` and
``<stem>.events``, so that one that is started again adds another. A file is one page of header, then rows; both are
mapped shared, so that what was written stays when the writer is killed. All of its room is taken when it is made:
writing blocks on nothing, and what no longer fits is counted. :mod:`testbed.shared_rows` has the header; a program in
another language needs these words of it, u64 in the machine's order: 0 magic, 1 version, 2 kind of rows, 3 capacity,
4 complete rows, 6 rows without room; 8 CLOCK_REALTIME minus CLOCK_MONOTONIC in ns when it was made. It makes the file
under another name, renames it when the header is complete, and raises word 4 after the row is written.

Calls are numbered by each process as it likes; the SSRC tells which of another process's they are.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from testbed.errors import InfrastructureError
from testbed.shared_rows import SharedRows

#: RTP timestamp units per second: Opus' clock (RFC 7587), whatever it was recorded at.
CLOCK_HZ: Final = 48_000


class Kind(IntEnum):
    """What the rows of a file are."""

    PACKETS = 0x5241
    FRAMES = 0x5242
    EVENTS = 0x5243


class Way(IntEnum):
    """Of a packet: sent or received by the process that wrote the row."""

    SENT = 1
    RECEIVED = 2


class Heard(IntEnum):
    """What became of a frame at playout.

    PLAYED: came out as it was sent. CONCEALED: was due and not there; something was made up, or silence. LATE: a packet
    arrived when its time was over; nothing came out for it. SKIPPED: was there and left out, to play nearer to live.
    """

    PLAYED = 1
    CONCEALED = 2
    LATE = 3
    SKIPPED = 4


class Step(IntEnum):
    """Steps of a call, in the order they have when all goes well.

    BEGUN: the client is about to send its offer. ANSWERED: the answer is there. CHECKED: a connectivity check
    succeeded. SECURED: DTLS is done. MEDIA: the first RTP packet that could be read. ENDED: the call is over; its
    value is of :class:`End`.
    """

    BEGUN = 1
    ANSWERED = 2
    CHECKED = 3
    SECURED = 4
    MEDIA = 5
    ENDED = 6


class End(IntEnum):
    """How a call ended: by this side; by the other, which said so; because nothing was heard for too long; or badly."""

    HERE = 0
    TOLD = 1
    SILENT = 2
    FAILED = 3


#: An RTP packet. ``t_ns``: CLOCK_MONOTONIC when it was handed to the kernel or taken from it. ``bytes``: the RTP
#: packet, its header included, before SRTP. ``timestamp`` and ``seq`` as the packet has them.
PACKET = np.dtype(
    [
        ("t_ns", "<i8"),
        ("call", "<u4"),
        ("ssrc", "<u4"),
        ("timestamp", "<u4"),
        ("seq", "<u2"),
        ("bytes", "<u2"),
        ("way", "u1"),
        ("payload_type", "u1"),
        ("pad", "V6"),
    ]
)

#: A frame at playout. ``t_ns``: CLOCK_MONOTONIC when it was due (LATE: when it came). ``ssrc``, ``timestamp``: of the
#: stream it belongs to, and of its first sample there. ``samples``: its length at 48 kHz. ``level``: samples that
#: waited in the buffer afterwards.
FRAME = np.dtype(
    [
        ("t_ns", "<i8"),
        ("call", "<u4"),
        ("ssrc", "<u4"),
        ("timestamp", "<u4"),
        ("samples", "<u4"),
        ("level", "<u4"),
        ("heard", "u1"),
        ("pad", "V3"),
    ]
)

#: A step of a call. ``t_ns``: CLOCK_MONOTONIC. ``ssrc``: of what this process sends in it, 0 where not known yet.
EVENT = np.dtype([("t_ns", "<i8"), ("call", "<u4"), ("ssrc", "<u4"), ("step", "<u4"), ("value", "<u4")])

DTYPES: Final[dict[int, np.dtype[np.void]]] = {Kind.PACKETS: PACKET, Kind.FRAMES: FRAME, Kind.EVENTS: EVENT}
_SUFFIXES: Final = {Kind.PACKETS: ".packets", Kind.FRAMES: ".frames", Kind.EVENTS: ".events"}
_PACKET: Final = struct.Struct("<qIIIHHBB6x")
_FRAME: Final = struct.Struct("<qIIIIIB3x")
_EVENT: Final = struct.Struct("<qIIII")
assert (_PACKET.size, _FRAME.size, _EVENT.size) == (PACKET.itemsize, FRAME.itemsize, EVENT.itemsize)

Rows = npt.NDArray[np.void]


class RtpLog:
    """The files that one process writes.

    Args:
        folder: where; made where it is not there.
        packets, frames, events: how many rows there is room for.

    Raises InfrastructureError where there is no room for that, or no folder can be.
    """

    def __init__(self, folder: Path, *, packets: int = 1 << 17, frames: int = 1 << 17, events: int = 1 << 12) -> None:
        stem = f"{os.getpid()}-{time.monotonic_ns()}"
        room = {Kind.PACKETS: packets, Kind.FRAMES: frames, Kind.EVENTS: events}
        self._files: dict[Kind, SharedRows] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for kind, capacity in room.items():
                self._files[kind] = _make(folder / f"{stem}{_SUFFIXES[kind]}", kind, capacity)
        except OSError as error:
            self.close()
            for kind in self._files:
                (folder / f"{stem}{_SUFFIXES[kind]}").unlink(missing_ok=True)
            raise InfrastructureError(
                "the log of RTP cannot be made",
                where=str(folder),
                found=error.strerror or str(error),
                expected=f"room for {sum(room[kind] * DTYPES[kind].itemsize for kind in room):,} bytes",
            ) from error
        self._packets, self._frames = self._files[Kind.PACKETS], self._files[Kind.FRAMES]
        self._events = self._files[Kind.EVENTS]

    def packet(
        self,
        way: Way,
        call: int,
        ssrc: int,
        seq: int,
        timestamp: int,
        size: int,
        *,
        payload_type: int = 0,
        t_ns: int | None = None,
    ) -> None:
        """A packet was sent or received, now or at ``t_ns`` of CLOCK_MONOTONIC; ``size``: bytes of RTP."""
        t_ns = time.monotonic_ns() if t_ns is None else t_ns
        self._packets.append_packed(_PACKET, t_ns, call, ssrc, timestamp, seq, size, way, payload_type)

    def frame(
        self,
        heard: Heard,
        call: int,
        samples: int,
        *,
        ssrc: int,
        timestamp: int,
        level: int = 0,
        t_ns: int | None = None,
    ) -> None:
        """A frame was due at playout, or came too late for it; lengths in samples at 48 kHz."""
        t_ns = time.monotonic_ns() if t_ns is None else t_ns
        self._frames.append_packed(_FRAME, t_ns, call, ssrc, timestamp, samples, level, heard)

    def event(self, step: Step, call: int, *, ssrc: int = 0, value: int = 0, t_ns: int | None = None) -> None:
        """A call has come a step further."""
        self._events.append_packed(_EVENT, time.monotonic_ns() if t_ns is None else t_ns, call, ssrc, step, value)

    def close(self) -> None:
        """Close the files; what is in them stays."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class Recorded:
    """What one process wrote.

    Attributes:
        name: which set of files.
        packets, frames, events: rows of :data:`PACKET`, :data:`FRAME`, :data:`EVENT`, in the order written.
        overflow: rows there was no room for; above 0 what they would tell is not known.
        realtime_offset_ns: CLOCK_REALTIME minus CLOCK_MONOTONIC.
    """

    name: str
    packets: Rows
    frames: Rows
    events: Rows
    overflow: int
    realtime_offset_ns: int


def read(folder: Path) -> list[Recorded]:
    """What every process has written to a folder so far, oldest first; their writers may go on, or be dead.

    A set whose writer died while it made it is left out: it holds nothing. Raises InfrastructureError for a file that
    is no such log.
    """
    found: dict[str, dict[Kind, Path]] = {}
    for kind, suffix in _SUFFIXES.items():
        for path in folder.glob(f"*{suffix}"):
            found.setdefault(path.stem, {})[kind] = path
    sets = [_recorded(stem, files) for stem, files in found.items() if files.keys() == _SUFFIXES.keys()]
    return sorted(sets, key=lambda recorded: _made_at(recorded.name))


def _made_at(stem: str) -> tuple[int, str]:
    made = stem.rpartition("-")[2]
    return (int(made) if made.isdecimal() else 0, stem)


def _recorded(stem: str, files: dict[Kind, Path]) -> Recorded:
    rows: dict[Kind, Rows] = {}
    overflow, offset = 0, 0
    for kind, path in files.items():
        with SharedRows(
            os.open(path, os.O_RDWR | os.O_CLOEXEC), {int(kind): DTYPES[kind]}, f"{kind.name.lower()} of RTP"
        ) as file:
            # Word 4 is whatever a program in any language wrote there.
            rows[kind] = file.rows[: min(file.cursor, file.capacity)].copy()
            overflow += file.overflow
            offset = _signed(file.words[0])
    return Recorded(stem, rows[Kind.PACKETS], rows[Kind.FRAMES], rows[Kind.EVENTS], overflow, offset)


def _make(path: Path, kind: Kind, capacity: int) -> SharedRows:
    dtype = DTYPES[kind]
    rows = SharedRows(SharedRows.make_file(path, kind, dtype, capacity), {int(kind): dtype}, "a new log")
    rows.words[0] = (time.time_ns() - time.monotonic_ns()) % (1 << 64)
    return rows


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
