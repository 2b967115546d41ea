"""A process on a device, as the runner sees it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from testbed.errors import InfrastructureError, UsageError

if TYPE_CHECKING:
    from testbed.fabric.rig.warden.handed import Handed

_OUTPUT_TAIL: Final = 1 << 20
_ERROR_TAIL: Final = 2000
_KILL_S: Final = 10.0


class Started:
    """A process as it was started once. What it prints is kept here, in a log or in memory."""

    def __init__(
        self,
        node: str,
        argv: tuple[str, ...],
        log: Path | None,
        send_signal: Callable[[int], None],
        fds: Mapping[int, Handed],
    ) -> None:
        self.node = node
        self.argv = argv
        self.log = log
        self._send_signal = send_signal
        self._fds = fds
        self._output = _open_log(log)
        self._errors = bytearray()
        self._telling = threading.Lock()
        self._ended = threading.Event()
        self._returncode: int | None = None
        #: Why it ended where it did not by itself: the connection to its device was lost.
        self.lost = ""

    def poll(self) -> int | None:
        """Exit code, negative for a signal, None while it runs."""
        return self._returncode

    def wait(self, timeout_s: float) -> int:
        """Wait for its end. Raises InfrastructureError on the deadline, with the tail of its output."""
        if not self._ended.wait(max(0.0, timeout_s)):
            raise InfrastructureError(
                f"{self.argv[0]} on {self.node} did not end within {timeout_s} s", found=self.output()[-_ERROR_TAIL:]
            )
        assert self._returncode is not None
        return self._returncode

    def signal(self, number: signal.Signals) -> None:
        """Signal it and what it started. No error when it has ended."""
        if self._returncode is None:
            self._send_signal(int(number))

    def stop(self, grace_s: float = 2.0) -> int:
        """End it: SIGTERM, after ``grace_s`` SIGKILL. Returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.end(grace_s)

    def end(self, grace_s: float) -> int:
        """Wait so long for its end, then SIGKILL. Returns the exit code."""
        if not self._ended.wait(max(0.0, grace_s)):
            self.signal(signal.SIGKILL)
        return self.wait(_KILL_S)

    def output(self, *, whole: bool = False) -> str:
        """What it printed so far, at most the last MiB unless the ``whole`` of it is asked for."""
        size = os.fstat(self._output).st_size
        start = 0 if whole else max(0, size - _OUTPUT_TAIL)
        return os.pread(self._output, size - start, start).decode(errors="replace")

    def errors(self) -> str:
        """What it printed to its standard error, where that was asked for by itself."""
        return self._errors.decode(errors="replace")

    # -- what its device tells --------------------------------------------------------------------------------------

    def printed(self, data: bytes) -> None:
        """It printed this."""
        os.write(self._output, data)

    def complained(self, data: bytes) -> None:
        """It printed this to its standard error, which is kept apart."""
        self._errors += data

    def wrote(self, fd: int, data: bytes) -> None:
        """It wrote this to a descriptor that was handed to it; nothing: its end."""
        self._fds[fd].data(data)

    def changed(self, fd: int, at: int, data: bytes) -> None:
        """It changed memory that it shares."""
        self._fds[fd].memory(at, data)

    def begin(self, give: Callable[[int, bytes], None]) -> None:
        """It runs; ``give`` has it read something from a descriptor."""
        for number, each in self._fds.items():
            each.begin(lambda data, number=number: give(number, data))  # type: ignore[misc]

    def ended(self, code: int, lost: str = "") -> None:
        """It has ended; who tells so first is believed."""
        with self._telling:
            if self._returncode is not None:
                return
            for each in self._fds.values():
                each.over()
            self.lost = lost
            self._returncode = code
            self._ended.set()

    def __del__(self) -> None:
        os.close(self._output)


class RigProcess:
    """See :class:`testbed.fabric.protocols.Process`."""

    def __init__(self, started: Started) -> None:
        #: The process that this stands for.
        self.it = started
        #: Starts it once more; what was started for something else of ours cannot be.
        self.again: Callable[[], RigProcess] | None = None

    @property
    def node(self) -> str:
        """The node's name."""
        return self.it.node

    @property
    def argv(self) -> tuple[str, ...]:
        """Its command line."""
        return self.it.argv

    @property
    def log(self) -> Path | None:
        """Where its output is kept; None when only :meth:`output` has it."""
        return self.it.log

    @property
    def lost(self) -> str:
        """Why it ended where it did not by itself: the connection to its device was lost."""
        return self.it.lost

    def poll(self) -> int | None:
        """Exit code, negative for a signal, None while it runs."""
        return self.it.poll()

    def wait(self, timeout_s: float) -> int:
        """Wait for its end. Raises InfrastructureError on the deadline, with the tail of its output."""
        return self.it.wait(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Signal it and what it started. No error when it has ended."""
        self.it.signal(number)

    def stop(self, grace_s: float = 2.0) -> int:
        """End it: SIGTERM, after ``grace_s`` SIGKILL. Returns the exit code."""
        return self.it.stop(grace_s)

    def end(self, grace_s: float) -> int:
        """Wait so long for its end, then SIGKILL. Returns the exit code."""
        return self.it.end(grace_s)

    def restart(self) -> None:
        """Start it again as it was started, ready as then; this then stands for the new one.

        Raises UsageError while it runs, InfrastructureError when it does not become ready.
        """
        if self.poll() is None or self.again is None:
            why = "still runs" if self.again is not None else "was started for a purpose that ended with it"
            raise UsageError(f"{self.argv[0]} on {self.node} {why}", expected="a process of node.popen() that ended")
        self.it = self.again().it

    def output(self, *, whole: bool = False) -> str:
        """What it printed so far, at most the last MiB unless the ``whole`` of it is asked for."""
        return self.it.output(whole=whole)

    def errors(self) -> str:
        """What it printed to its standard error, where that was asked for by itself."""
        return self.it.errors()


def _open_log(log: Path | None) -> int:
    if log is None:
        return os.memfd_create("output", os.MFD_CLOEXEC)
    log.parent.mkdir(parents=True, exist_ok=True)
    return os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
