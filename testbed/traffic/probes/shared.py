"""Samples in shared memory: one header page, then rows. Written by one agent, read by the runner meanwhile.

Rows are written first, the cursor after them, so a reader never sees a row that is not complete. A full
buffer keeps its rows and counts what no longer fits as ``overflow``: then the loss is unknown.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum
from types import TracebackType

import numpy as np
import numpy.typing as npt

from testbed.errors import InfrastructureError
from testbed.samples import ARRIVAL, SENT, ArrivalArray, SentArray

MAGIC = 0x4D52_4350_524F_4245
VERSION = 1
HEADER_BYTES = 4096
_CURSOR = 4
_STATE = 5
_COUNTERS = 8


class Kind(IntEnum):
    """What the rows are."""

    SENT = 1
    ARRIVALS = 2


class State(IntEnum):
    """How far the agent is."""

    NEW = 0
    READY = 1
    RUNNING = 2
    FINISHED = 3


class Counter(IntEnum):
    """Live counters, all u64, in the order they have in the header.

    SENT: packets the kernel took. REFUSED: packets it refused. LATE: offered more than 1 ms after their time.
    BEHIND_NS_MAX: the furthest any packet was behind the schedule.
    SEND_ERROR_NS: the largest possible error of a ``t_ns``: half of the longest call for packets sent alone, nearly
    all of it for the first and last of a batch.
    BLOCKED: times the sender waited for room in its socket. REOFFERED: refused packets that the kernel saw twice
    (sendmmsg tells the errno only for the first packet of a call). RECEIVED: probes of this run.
    FOREIGN: probes of other runs. MALFORMED: not a probe. OTHER_PORT: arrived on a port outside the plan.
    RECEIVER_DROPS: dropped by the receiver's own ring. OVERFLOW: packets without a row.
    LAST_T_NS: CLOCK_REALTIME of the newest row.
    CPU_NS: processor time the agent used since it was ready, written when it finishes.
    """

    SENT = 0
    REFUSED = 1
    LATE = 2
    BEHIND_NS_MAX = 3
    SEND_ERROR_NS = 4
    BLOCKED = 5
    REOFFERED = 6
    RECEIVED = 7
    FOREIGN = 8
    MALFORMED = 9
    OTHER_PORT = 10
    RECEIVER_DROPS = 11
    OVERFLOW = 12
    LAST_T_NS = 13
    CPU_NS = 14


_DTYPES = {Kind.SENT: SENT, Kind.ARRIVALS: ARRIVAL}


class SampleFile:
    """One memfd of samples, mapped shared. The runner creates it; the agent attaches to the inherited descriptor."""

    def __init__(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size < HEADER_BYTES:
            raise _not_samples(f"{size} bytes")
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        words = np.frombuffer(self._map, np.uint64, HEADER_BYTES // 8)
        if int(words[0]) != MAGIC or int(words[1]) != VERSION or int(words[2]) not in list(Kind):
            self._map = mmap.mmap(-1, 1)
            raise _not_samples(f"magic {int(words[0]):#x}, version {int(words[1])}, kind {int(words[2])}")
        # A memoryview: reading and writing single words of it costs a third of what numpy takes.
        self._words = memoryview(self._map)[:HEADER_BYTES].cast("Q")
        self.kind = Kind(int(words[2]))
        self.capacity = int(words[3])
        dtype = _DTYPES[self.kind]
        if size < HEADER_BYTES + self.capacity * dtype.itemsize:
            raise _not_samples(f"{size} bytes for {self.capacity} rows")
        self.rows: npt.NDArray[np.void] = np.frombuffer(self._map, dtype, self.capacity, HEADER_BYTES)
        self._row_words = self.rows.view(np.uint64).reshape(self.capacity, -1)
        #: The counters, for the one process that writes them.
        self.live: memoryview[int] = self._words[_COUNTERS : _COUNTERS + len(Counter)]

    @classmethod
    def create(cls, kind: Kind, capacity: int, name: str = "probe-samples") -> SampleFile:
        """A new file for ``capacity`` rows; memory is used as rows are written. Its descriptor must be inherited."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(fd, HEADER_BYTES + capacity * _DTYPES[kind].itemsize)
        with mmap.mmap(fd, HEADER_BYTES) as page:
            page[:32] = np.array([MAGIC, VERSION, kind, capacity], np.uint64).tobytes()
        return cls(fd)

    @property
    def state(self) -> State:
        """How far the agent is."""
        return State(self._words[_STATE])

    @state.setter
    def state(self, state: State) -> None:
        self._words[_STATE] = state

    @property
    def cursor(self) -> int:
        """Complete rows."""
        return self._words[_CURSOR]

    def append(self, rows: npt.NDArray[np.void]) -> None:
        """Write contiguous rows and publish them; those that do not fit are counted as overflow."""
        self.append_words(rows.view(np.uint64).reshape(len(rows), -1))

    def append_words(self, rows: npt.NDArray[np.uint64]) -> None:
        """The same for rows as ``(n, 4)`` words: numpy copies structured rows field by field, words in one go."""
        at = self._words[_CURSOR]
        fitting = min(len(rows), self.capacity - at)
        if fitting:
            self._row_words[at : at + fitting] = rows[:fitting]
            self._words[_CURSOR] = at + fitting
        if fitting < len(rows):
            self.live[Counter.OVERFLOW] += len(rows) - fitting

    def sent(self) -> SentArray:
        """The rows of :data:`testbed.samples.SENT` so far, without a copy."""
        return self._published(Kind.SENT)

    def arrivals(self) -> ArrivalArray:
        """The rows of :data:`testbed.samples.ARRIVAL` so far, without a copy."""
        return self._published(Kind.ARRIVALS)

    def counters(self) -> dict[str, int]:
        """All counters by lower-case name, as they are now."""
        values = self.live.tolist()
        return {counter.name.lower(): values[counter] for counter in Counter}

    def close(self) -> None:
        """Close the descriptor. Rows handed out stay valid until they are dropped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _published(self, kind: Kind) -> npt.NDArray[np.void]:
        if kind is not self.kind:
            raise TypeError(f"this file holds {self.kind.name}, not {kind.name}")
        rows = self.rows[: self.cursor].view()
        rows.flags.writeable = False
        return rows


def _not_samples(found: str) -> InfrastructureError:
    return InfrastructureError(
        "the samples descriptor does not hold probe samples",
        where="probe agent",
        found=found,
        expected=f"a descriptor made by SampleFile.create, version {VERSION}",
        remedy="start agent and runner from the same installation",
    )
