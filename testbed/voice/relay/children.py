"""Processes that a supervisor forks, and forks again when they die; they end with it, by whatever it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

from testbed.kernel import die_with_parent

#: A child that lived less than this is started again only after a pause, which doubles.
_SHORT_LIFE_S: Final = 1.0
_PAUSES_S: Final = (0.05, 2.0)
_FAILED: Final = 70


class Child:
    """One process, and the next in its place.

    Attributes:
        name: for what is told of it.
        pid: 0 while there is none.
        main: what the next one does.
        deaths: how often it ended without being asked to.
        done: it ended well, and is not started again.
    """

    def __init__(self, name: str, main: Callable[[], None]) -> None:
        """``main``: what the process does; when it returns, the child is done."""
        self.name, self.main = name, main
        self.pid = 0
        self.deaths = 0
        self.done = False
        self._began = 0.0
        self._pause_s = 0.0
        self._due = 0.0

    def start(self) -> None:
        """Fork."""
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(self.main, parent)
        self.pid, self._began, self._due = pid, time.monotonic(), 0.0

    def reap(self) -> int | None:
        """Take note of its end, if it has ended: its exit code, or minus the signal; else None."""
        if not self.pid:
            return None
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        code = os.waitstatus_to_exitcode(status)
        self.pid = 0
        if code == 0:
            self.done = True
            return code
        self.deaths += 1
        short = time.monotonic() - self._began < _SHORT_LIFE_S
        self._pause_s = min(max(2 * self._pause_s, _PAUSES_S[0]), _PAUSES_S[1]) if short else 0.0
        self._due = time.monotonic() + self._pause_s
        return code

    def due_in_s(self) -> float | None:
        """When it is to be started again; None where it is not."""
        return None if self.pid or self.done else max(0.0, self._due - time.monotonic())

    def kill(self) -> None:
        """End it and wait for that."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        self.done = True


def _become(main: Callable[[], None], parent: int) -> NoReturn:
    code = _FAILED
    try:
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        # A key on the terminal reaches the whole group; the supervisor decides what it means.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        main()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
