"""Packets that are ready for ``sendmmsg(2)``."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.mmsg import IOVEC, MMSGHDR, SOCKADDR_IN6
from testbed.mrc.wire.paths import PathTable


@dataclass(frozen=True)
class Encoded:
    """Packets in the buffers of their encoder; they hold until it encodes again.

    Attributes:
        count: how many.
        messages: ``(count,)`` of :data:`testbed.mmsg.MMSGHDR`, contiguous; its address is what ``sendmmsg`` takes.
    """

    count: int
    messages: npt.NDArray[np.void]

    def packets(self) -> list[bytes]:
        """A copy of each packet, gathered from where its message points, as the kernel would."""
        out = []
        for message in self.messages:
            size = int(message["iov_length"]) * IOVEC.itemsize
            iovecs = np.frombuffer(ctypes.string_at(int(message["iov"]), size), IOVEC)
            out.append(b"".join(ctypes.string_at(int(part["base"]), int(part["length"])) for part in iovecs))
        return out


class Messages:
    """Preallocated messages of ``parts`` iovecs each, each sent to the destination of its packet's path.

    Attributes:
        base: ``(capacity, parts)`` u8, address of each iovec.
        length: ``(capacity, parts)`` u8.
    """

    def __init__(self, paths: PathTable, capacity: int, parts: int) -> None:
        self._sockaddrs = paths.sockaddrs
        at = np.arange(len(paths), dtype=np.uint64) * SOCKADDR_IN6.itemsize
        self._names = at + np.uint64(paths.sockaddrs.ctypes.data)
        self._iovecs = np.zeros((capacity, parts), IOVEC)
        self.base, self.length = self._iovecs["base"], self._iovecs["length"]
        self._messages = np.zeros(capacity, MMSGHDR)
        self._messages["name_length"] = SOCKADDR_IN6.itemsize
        self._messages["iov"] = self._iovecs.ctypes.data + np.arange(capacity) * parts * IOVEC.itemsize
        self._messages["iov_length"] = parts
        self._name = self._messages["name"]

    def encoded(self, path: npt.NDArray[np.integer]) -> Encoded:
        """The first messages, one for each path."""
        count = len(path)
        self._name[:count] = self._names.take(path)
        return Encoded(count, self._messages[:count])
