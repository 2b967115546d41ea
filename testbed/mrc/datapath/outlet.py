"""Packets out: sendmmsg over what the codec made, never waiting. What the kernel refuses is lost on the way."""

from __future__ import annotations

import ctypes
import errno
import socket
import time

import numpy as np
import numpy.typing as npt

from testbed.mmsg import MMSGHDR, sendmmsg

_MESSAGE = MMSGHDR.itemsize


class Outlet:
    """One sending socket and the batch on its way into it.

    The memory behind a batch must stay as it is until :meth:`flush` has said that all is done.

    Attributes:
        socket: the socket.
        sent: packets that the kernel took.
        blocked: times its buffer had no room.
        refused: packets that the kernel refused, by errno; ENOBUFS: a queue of the own host was full.
    """

    def __init__(self, sender: socket.socket) -> None:
        self.socket = sender
        self.sent = 0
        self.blocked = 0
        self.refused: dict[int, int] = {}
        self._fd = sender.fileno()
        self._at = 0
        self._left = 0
        self._rows: npt.NDArray[np.void] | None = None

    @property
    def pending(self) -> int:
        """Packets of the batch that the kernel has not taken yet."""
        return self._left

    def offer(self, messages: int, count: int, rows: npt.NDArray[np.void] | None = None) -> bool:
        """Send a batch; nothing may be pending.

        Args:
            messages: address of the first MMSGHDR.
            count: how many.
            rows: their rows of SENT, of which ``t_ns`` and ``status`` are filled in as they go.

        Returns whether all of it is done.
        """
        self._at, self._left, self._rows = messages, count, rows
        return self.flush()

    def flush(self) -> bool:
        """Go on with the batch; returns whether all of it is done, or False where the socket has no room."""
        while self._left:
            now = time.time_ns()
            taken = sendmmsg(self._fd, self._at, self._left, socket.MSG_DONTWAIT)
            status = 0
            if taken > 0:
                self.sent += taken
            else:
                status = ctypes.get_errno()
                if status == errno.EAGAIN:
                    self.blocked += 1
                    return False
                if status == errno.EINTR:
                    continue
                # sendmmsg tells the errno of the first packet only: this one is refused, the next may go.
                self.refused[status] = self.refused.get(status, 0) + 1
                taken = 1
            if self._rows is not None:
                done = len(self._rows) - self._left
                self._rows["t_ns"][done : done + taken] = now
                self._rows["status"][done : done + taken] = status
            self._at += taken * _MESSAGE
            self._left -= taken
        return True

    def drop(self) -> None:
        """Give up what is pending: counted as refused with EAGAIN."""
        if self._left:
            self.refused[errno.EAGAIN] = self.refused.get(errno.EAGAIN, 0) + self._left
            self._left = 0

    def counters(self, name: str) -> dict[str, int]:
        """Its counters, by names that hold ``name``."""
        found = {f"mrc_{name}_sent": self.sent, f"mrc_{name}_blocked": self.blocked}
        for code, count in self.refused.items():
            found[f"mrc_{name}_refused_{errno.errorcode.get(code, str(code)).lower()}"] = count
        return found
