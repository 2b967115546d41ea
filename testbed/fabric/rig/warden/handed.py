"""Descriptors of this process, handed to a program on another machine: what goes through them is carried there."""

from __future__ import annotations

import base64
import fcntl
import os
import queue
import select
import stat
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from testbed.errors import UsageError
from testbed.shared_rows import HEADER_BYTES, MAGIC

_CHUNK: Final = 64 * 1024
_LOOK_MS: Final = 100
#: Of memory that holds no rows all is compared each time.
_MOST_WHOLE: Final = 1 << 20
_WORD: Final = 8
_CURSOR_AT: Final = 32


class Handed(Protocol):
    """One descriptor of a program's."""

    def request(self) -> dict[str, Any]:
        """What the other end is to make of it."""
        ...

    def begin(self, send: Callable[[bytes], None]) -> None:
        """The program runs; ``send`` gives it bytes to read, and their end by none."""
        ...

    def data(self, data: bytes) -> None:
        """It has written this; nothing: it writes no more."""
        ...

    def memory(self, at: int, data: bytes) -> None:
        """It has changed memory that it shares."""
        ...

    def over(self) -> None:
        """It has ended, and everything of it was told."""
        ...


class Deaf:
    """What a descriptor does where nothing else is said."""

    def begin(self, send: Callable[[bytes], None]) -> None:
        """Nothing is sent."""

    def data(self, data: bytes) -> None:
        """Nothing is read."""

    def memory(self, at: int, data: bytes) -> None:
        """Nothing is shared."""

    def over(self) -> None:
        """Nothing is held."""


class Input(Deaf):
    """The reading end of a pipe: what is written to the other end here, the program reads there."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)
        self._ended = threading.Event()

    def request(self) -> dict[str, Any]:
        """See :class:`Handed`."""
        return {"kind": "in"}

    def begin(self, send: Callable[[bytes], None]) -> None:
        """Carry it on until it ends, or the program does."""
        threading.Thread(target=self._carry, args=(send,), name="rig-input", daemon=True).start()

    def _carry(self, send: Callable[[bytes], None]) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        try:
            while not self._ended.is_set():
                if poll.poll(_LOOK_MS):
                    data = os.read(self._fd, _CHUNK)
                    send(data)
                    if not data:
                        return
        finally:
            os.close(self._fd)

    def over(self) -> None:
        """Carry nothing more."""
        self._ended.set()


class Output(Deaf):
    """The writing end of a pipe: what the program writes there, comes out of the other end here."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)
        self._waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # By a thread of its own: who reads it may be waiting for something else of the same device.
        threading.Thread(target=self._carry, name="rig-output", daemon=True).start()

    def request(self) -> dict[str, Any]:
        """See :class:`Handed`."""
        return {"kind": "out"}

    def _carry(self) -> None:
        try:
            while data := self._waiting.get():
                text = memoryview(data)
                while text:
                    text = text[os.write(self._fd, text) :]
        except OSError:
            pass  # Nobody reads it any more.
        finally:
            os.close(self._fd)

    def data(self, data: bytes) -> None:
        """See :class:`Handed`."""
        self._waiting.put(data)

    def over(self) -> None:
        """Its end, where the program left that to its own."""
        self._waiting.put(b"")


class Told(Deaf):
    """A descriptor by which a program tells that it is ready: anything it writes."""

    def __init__(self) -> None:
        self.ready = threading.Event()

    def request(self) -> dict[str, Any]:
        """See :class:`Handed`."""
        return {"kind": "out"}

    def data(self, data: bytes) -> None:
        """See :class:`Handed`."""
        if data:
            self.ready.set()


class Memory(Deaf):
    """Memory that is shared: as it is when the program starts, and from then on as the program has it there."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)
        self._size = os.fstat(fd).st_size
        self._position = os.lseek(fd, 0, os.SEEK_CUR)
        first = os.pread(fd, _WORD, 0)
        self._rows = self._size >= HEADER_BYTES and first == MAGIC.to_bytes(_WORD, "little")
        if not self._rows and self._size > _MOST_WHOLE:
            os.close(self._fd)
            raise UsageError("this is too much memory to be shared with a device", found=f"{self._size} bytes")

    def request(self) -> dict[str, Any]:
        """See :class:`Handed`."""
        content = os.pread(self._fd, HEADER_BYTES if self._rows else self._size, 0)
        return {
            "kind": "memory",
            "size": self._size,
            "position": self._position,
            "rows": self._rows,
            "content": base64.b64encode(content).decode(),
        }

    def memory(self, at: int, data: bytes) -> None:
        """See :class:`Handed`. The word that counts rows is written at once, and last."""
        if self._rows and at <= _CURSOR_AT < at + len(data):
            word = _CURSOR_AT - at
            os.pwrite(self._fd, data[:word], at)
            os.pwrite(self._fd, data[word + _WORD :], _CURSOR_AT + _WORD)
            os.pwrite(self._fd, data[word : word + _WORD], _CURSOR_AT)
        else:
            os.pwrite(self._fd, data, at)

    def over(self) -> None:
        """See :class:`Handed`."""
        os.close(self._fd)


def handed(fds: Mapping[int, int]) -> dict[int, Handed]:
    """What each descriptor of this process is, by its number in the program (number there → number here)."""
    return {there: _one(here) for there, here in fds.items()}


def _one(fd: int) -> Handed:
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return Memory(fd)
    writing = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    return Output(fd) if writing else Input(fd)
