"""The agent's lifeline: commands on a descriptor, whose end means stop; SIGTERM means the same."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from testbed.kernel import POLLFD, POLLIN, POLLOUT, ppoll


class Control:
    """Reads commands, one a line: ``start <CLOCK_REALTIME ns>`` and ``stop``. Unknown lines are ignored.

    Attributes:
        start_ns: the start asked for, None until then; a time in the past means now.
        stopped: whether to stop: asked, at the end of the descriptor, or by SIGTERM.
    """

    def __init__(self, fd: int) -> None:
        self.start_ns: int | None = None
        self.stopped = False
        self._fd = fd
        self._text = b""
        os.set_blocking(fd, False)
        # A signal that comes just before a wait must still end the wait: the interpreter writes to this pipe.
        self._signals, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGTERM, self._terminate)
        self._poll = np.zeros(3, POLLFD)
        self._poll["fd"] = (fd, self._signals, -1)
        self._poll["events"] = (POLLIN, POLLIN, 0)
        self._revents = self._poll["revents"]
        self._timeout = np.zeros(2, np.int64)
        self._poll_at = self._poll.ctypes.data
        self._timeout_at = self._timeout.ctypes.data

    def wait(self, nanoseconds: int, *, readable: int = -1, writable: int = -1) -> None:
        """Wait for a command, for a descriptor, or for at most so long; 0 only looks."""
        if nanoseconds < 0:
            nanoseconds = 0
        if readable != writable:
            self._poll[2] = (max(readable, writable), POLLIN if readable >= 0 else POLLOUT, 0)
        self._timeout[0], self._timeout[1] = divmod(nanoseconds, 1_000_000_000)
        found = ppoll(self._poll_at, 3, self._timeout_at, None)
        self._poll["fd"][2] = -1
        if found > 0 and (self._revents[0] or self._revents[1]):
            self._read()

    def wait_for_start(self) -> int | None:
        """Wait for ``start`` or the end; then until the start.

        Returns:
            The start on CLOCK_MONOTONIC in nanoseconds; None where it was stopped before.
        """
        while self.start_ns is None and not self.stopped:
            self.wait(3_600_000_000_000)
        if self.start_ns is None:
            return None
        start = time.monotonic_ns() + max(self.start_ns - time.time_ns(), 0)
        while not self.stopped and (left := start - time.monotonic_ns()) > 0:
            self.wait(left)
        return None if self.stopped else start

    def _terminate(self, number: int, frame: object) -> None:
        del number, frame
        self.stopped = True

    def _read(self) -> None:
        if self._revents[1]:
            os.read(self._signals, 64)
        if not self._revents[0]:
            return
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self.stopped = True
            return
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            self._obey(line.split())

    def _obey(self, words: list[bytes]) -> None:
        if words[:1] == [b"stop"]:
            self.stopped = True
        elif words[:1] == [b"start"] and len(words) == 2 and words[1].isdigit():
            self.start_ns = int(words[1])
