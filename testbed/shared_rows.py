"""Rows in shared memory: one header page, then rows. Written by one process, read by another meanwhile.

Rows are written first, the cursor after them, so a reader never sees a row that is not complete. A full buffer keeps
its rows and counts what no longer fits as ``overflow``.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from testbed.errors import InfrastructureError

MAGIC = 0x4D52_4350_524F_4245
VERSION = 2
HEADER_BYTES = 4096
_CURSOR = 4
_STATE = 5
_OVERFLOW = 6
_WORDS = 8


class SharedRows:
    """One memfd of rows, mapped shared. The runner creates it; the agent attaches to the inherited descriptor.

    Attributes:
        kind: the number given at its creation: which of ``kinds`` its rows are.
        capacity: rows it holds.
        rows: all of them, written or not.
        words: the rest of the header: u64 for whatever use, for the one process that writes them.
    """

    def __init__(self, fd: int, kinds: Mapping[int, np.dtype[np.void]], what: str) -> None:
        """Attach.

        Args:
            fd: the descriptor, which is the object's own from now on.
            kinds: what rows may be, by number.
            what: what is expected to be in it, for errors.

        Raises InfrastructureError for a descriptor that holds something else.
        """
        size = os.fstat(fd).st_size
        if size < HEADER_BYTES:
            raise _not_rows(what, f"{size} bytes")
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        words = np.frombuffer(self._map, np.uint64, HEADER_BYTES // 8)
        if int(words[0]) != MAGIC or int(words[1]) != VERSION or int(words[2]) not in kinds:
            self._map = mmap.mmap(-1, 1)
            raise _not_rows(what, f"magic {int(words[0]):#x}, version {int(words[1])}, kind {int(words[2])}")
        # A memoryview: reading and writing single words of it costs a third of what numpy takes.
        self._header = memoryview(self._map)[:HEADER_BYTES].cast("Q")
        self.kind = int(words[2])
        self.capacity = int(words[3])
        dtype = kinds[self.kind]
        if size < HEADER_BYTES + self.capacity * dtype.itemsize:
            raise _not_rows(what, f"{size} bytes for {self.capacity} rows")
        self.rows: npt.NDArray[np.void] = np.frombuffer(self._map, dtype, self.capacity, HEADER_BYTES)
        # numpy copies structured rows field by field, words in one go.
        whole = dtype.itemsize % 8 == 0
        self._row_words = self.rows.view(np.uint64 if whole else np.uint8).reshape(self.capacity, -1)
        self.words: memoryview[int] = self._header[_WORDS:]

    @staticmethod
    def make(kind: int, dtype: np.dtype[np.void], capacity: int, name: str) -> int:
        """A new memfd for ``capacity`` rows; memory is used as rows are written. Its descriptor must be inherited."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(fd, HEADER_BYTES + capacity * dtype.itemsize)
        _write_header(fd, kind, capacity)
        return fd

    @staticmethod
    def make_file(path: Path, kind: int, dtype: np.dtype[np.void], capacity: int) -> int:
        """The same as a file, which is under its name only once it is complete, with all of its room taken.

        Raises OSError.
        """
        making = path.with_name(path.name + ".part")
        fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Taken now: a page that cannot be had later would end the process that writes to it.
            os.posix_fallocate(fd, 0, HEADER_BYTES + capacity * dtype.itemsize)
            _write_header(fd, kind, capacity)
            making.rename(path)
        except BaseException:
            os.close(fd)
            making.unlink(missing_ok=True)
            raise
        return fd

    @property
    def progress(self) -> int:
        """A number by which the writer says how far it is; 0 at first."""
        return self._header[_STATE]

    @progress.setter
    def progress(self, value: int) -> None:
        self._header[_STATE] = value

    @property
    def cursor(self) -> int:
        """Complete rows."""
        return self._header[_CURSOR]

    @property
    def overflow(self) -> int:
        """Rows for which there was no room."""
        return self._header[_OVERFLOW]

    def append(self, rows: npt.NDArray[np.void]) -> None:
        """Write contiguous rows and publish them; those that do not fit are counted as overflow."""
        self.append_words(rows.view(self._row_words.dtype).reshape(len(rows), -1))

    def append_words(self, rows: npt.NDArray[np.unsignedinteger]) -> None:
        """The same for rows as ``(n, words)``: u64, or bytes where a row is no whole number of words."""
        at = self._header[_CURSOR]
        fitting = min(len(rows), self.capacity - at)
        if fitting:
            self._row_words[at : at + fitting] = rows[:fitting]
            self._header[_CURSOR] = at + fitting
        if fitting < len(rows):
            self._header[_OVERFLOW] += len(rows) - fitting

    def append_packed(self, layout: struct.Struct, *values: int) -> None:
        """The same for one row, packed by a layout of the rows' size: for those who write few at a time."""
        at = self._header[_CURSOR]
        if at < self.capacity:
            layout.pack_into(self._map, HEADER_BYTES + at * layout.size, *values)
            self._header[_CURSOR] = at + 1
        else:
            self._header[_OVERFLOW] += 1

    def published(self) -> npt.NDArray[np.void]:
        """The complete rows so far, without a copy, not to be written to."""
        rows = self.rows[: self.cursor].view()
        rows.flags.writeable = False
        return rows

    def close(self) -> None:
        """Close the descriptor. Rows handed out stay valid until they are dropped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class RowRing(SharedRows):
    """The same without an end: the newest rows take the place of the oldest; a reader keeps its own position."""

    def append_words(self, rows: npt.NDArray[np.unsignedinteger]) -> None:
        """Write rows, at most as many as there is room for, and publish them."""
        at = self._header[_CURSOR]
        first = at % self.capacity
        fitting = min(len(rows), self.capacity - first)
        self._row_words[first : first + fitting] = rows[:fitting]
        self._row_words[: len(rows) - fitting] = rows[fitting:]
        self._header[_CURSOR] = at + len(rows)

    def read_from(self, position: int) -> tuple[npt.NDArray[np.void], int, int]:
        """A copy of the rows from a position on, the position after them, and how many of them were overwritten.

        A reader that comes too late gets what is left; rows that are overwritten while it copies count as such.
        """
        end = self.cursor
        first = max(position, end - self.capacity)
        places = np.arange(first, end) % self.capacity
        rows = self.rows[places]
        oldest = max(first, self.cursor - self.capacity)
        return rows[oldest - first :], end, oldest - position


def _write_header(fd: int, kind: int, capacity: int) -> None:
    with mmap.mmap(fd, HEADER_BYTES) as page:
        page[:32] = np.array([MAGIC, VERSION, kind, capacity], np.uint64).tobytes()


def _not_rows(what: str, found: str) -> InfrastructureError:
    return InfrastructureError(
        f"the samples descriptor does not hold {what}",
        where="agent",
        found=found,
        expected=f"a descriptor made by the runner, version {VERSION}",
        remedy="start agent and runner from the same installation",
    )
