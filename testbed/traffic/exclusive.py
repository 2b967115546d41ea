"""One measurement at a time on a machine: two at once would measure each other."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Iterator

from testbed.errors import InfrastructureError

_NAME = "\0mrc-testbed/measuring"


class _Shares:
    """What this process holds of the lock: its workloads run side by side, and the last to end lets go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: socket.socket | None = None
        self._count = 0

    def take(self, timeout_s: float) -> None:
        with self._lock:
            if self._holder is None:
                self._holder = _acquire(timeout_s)
            self._count += 1

    def give_back(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0 and self._holder is not None:
                self._holder.close()
                self._holder = None


_shares = _Shares()


@contextlib.contextmanager
def measuring(timeout_s: float = 600.0) -> Iterator[None]:
    """Hold the machine-wide measurement lock; workloads of one process share it.

    The lock is an abstract Unix socket: no file, and the kernel lets go of it with its holder, however that ends.
    Raises InfrastructureError, naming the holder, when it was not free in time.
    """
    _shares.take(timeout_s)
    try:
        yield
    finally:
        _shares.give_back()


def _acquire(timeout_s: float) -> socket.socket:
    """The socket that is the lock."""
    deadline = time.monotonic() + timeout_s
    while True:
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            holder.bind(_NAME)
            holder.listen(64)
            return holder
        except OSError as error:
            holder.close()
            if error.errno != errno.EADDRINUSE:
                raise
            _wait_for_release(deadline, timeout_s)


def _wait_for_release(deadline: float, timeout_s: float) -> None:
    """Wait until the holder goes away: it never accepts, so a connection to it lasts as long as the lock."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as waiting:
        remaining = deadline - time.monotonic()
        waiting.settimeout(max(0.001, remaining))
        pid = 0
        try:
            waiting.connect(_NAME)
            pid = struct.unpack("3i", waiting.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            waiting.recv(1)
        except TimeoutError:
            raise InfrastructureError(
                f"another measurement held this machine for {timeout_s:.0f} s",
                found=f"process {pid}" if pid else "an unknown process",
                remedy="wait for it, or end it",
            ) from None
        except OSError:
            # Released between the two calls, or its queue of waiters is full: look again.
            if time.monotonic() > deadline:
                raise InfrastructureError(f"the measurement lock was not free within {timeout_s:.0f} s") from None
