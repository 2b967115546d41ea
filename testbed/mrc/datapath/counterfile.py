"""Counters by name in shared memory, written by the NIC's process and read by a watcher meanwhile.

A word is written at once, so each counter is always one that was true; together they are of about the same moment.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np

from testbed.errors import InfrastructureError

MAGIC = 0x4D52_434E_4943_4354
VERSION = 1
CAPACITY = 512
NAME_BYTES = 56
_COUNT, _PROGRESS, _T_NS = 2, 3, 4
_VALUES = 8
_NAMES_AT = (_VALUES + CAPACITY) * 8
BYTES = _NAMES_AT + CAPACITY * NAME_BYTES
_U64 = (1 << 64) - 1


class CounterFile:
    """One memfd of counters, mapped shared. The runner creates it; the agent attaches to the inherited descriptor."""

    def __init__(self, fd: int) -> None:
        """Attach to ``fd``, which is the object's own from now on. Raises InfrastructureError for another file."""
        size = os.fstat(fd).st_size
        found = f"{size} bytes"
        if size == BYTES:
            self._map = mmap.mmap(fd, size)
            self._words = memoryview(self._map)[:_NAMES_AT].cast("Q")
            found = f"magic {self._words[0]:#x}, version {self._words[1]}"
        if size != BYTES or self._words[0] != MAGIC or self._words[1] != VERSION:
            raise InfrastructureError(
                "the descriptor does not hold a NIC's counters",
                where="agent",
                found=found,
                expected=f"a descriptor made by CounterFile.create, version {VERSION}",
                remedy="start agent and runner from the same installation",
            )
        self.fd = fd
        self._index: dict[str, int] = {}

    @classmethod
    def create(cls, name: str = "nic-counters") -> CounterFile:
        """A new one. Its descriptor must be inherited."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(fd, BYTES)
        os.pwrite(fd, np.array([MAGIC, VERSION], np.uint64).tobytes(), 0)
        return cls(fd)

    @property
    def progress(self) -> int:
        """A number by which the writer says how far it is; 0 at first."""
        return self._words[_PROGRESS]

    @progress.setter
    def progress(self, value: int) -> None:
        self._words[_PROGRESS] = value

    @property
    def t_ns(self) -> int:
        """CLOCK_REALTIME of the last :meth:`write`; 0 before the first."""
        return self._words[_T_NS]

    def write(self, values: Mapping[str, int], t_ns: int) -> None:
        """Set counters; a name that is new is added. Raises InfrastructureError when there are too many."""
        words, index = self._words, self._index
        for name, value in values.items():
            at = index.get(name)
            if at is None:
                at = self._add(name)
            words[_VALUES + at] = value & _U64
        words[_T_NS] = t_ns

    def read(self) -> dict[str, int]:
        """All counters by name, as they are now."""
        count = self._words[_COUNT]
        for at in range(len(self._index), count):
            start = _NAMES_AT + at * NAME_BYTES
            self._index[self._map[start : start + NAME_BYTES].rstrip(b"\0").decode()] = at
        return {name: self._words[_VALUES + at] for name, at in self._index.items() if at < count}

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _add(self, name: str) -> int:
        at, text = len(self._index), name.encode()
        if at >= CAPACITY or len(text) > NAME_BYTES:
            raise InfrastructureError(
                "a counter has no room",
                where="NIC counters",
                found=f"{name!r}, number {at + 1}",
                expected=f"at most {CAPACITY} counters, names of at most {NAME_BYTES} bytes",
            )
        start = _NAMES_AT + at * NAME_BYTES
        self._map[start : start + len(text)] = text
        self._index[name] = at
        # After the name, so that a reader never sees a counter without one; the value follows at once.
        self._words[_COUNT] = at + 1
        return at
