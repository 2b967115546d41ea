"""The warden of a device, as the runner talks to it; :mod:`testbed.fabric.rig.warden.program` is what runs there."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from testbed.errors import BedError, InfrastructureError
from testbed.fabric.devices import Change, Changes
from testbed.fabric.rig.warden import program as wire
from testbed.fabric.rig.warden.handed import Handed
from testbed.fabric.rig.warden.process import RigProcess, Started
from testbed.fabric.work import Conversation, Programs
from testbed.record import ClockReading

_HELLO_S: Final = 20.0
_ANSWER_S: Final = 15.0
_PINGS_PER_SILENCE: Final = 4
_LAUNCHER: Final = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), 'warden', 'exec'))"


class Warden:
    """Starts processes on one device, and ends them all with the connection, or with the lease.

    Args:
        node: the device.
        conversation: with the program there.
        journalled: the entry of it.
        guard: raises when the device may not be touched any more; the warden then hears nothing more, and ends all.
        silence_s: after which that happens.
    """

    def __init__(
        self, node: str, conversation: Conversation, journalled: Change, guard: Callable[[], None], silence_s: float
    ) -> None:
        self.node = node
        self._conversation = conversation
        self._journalled = journalled
        self._guard = guard
        self._writing = threading.Lock()
        self._processes: dict[int, Started] = {}
        self._answers: dict[int, queue.SimpleQueue[tuple[bytes, bytes] | None]] = {0: queue.SimpleQueue()}
        self._numbers = itertools.count(1)
        self._closed = threading.Event()
        self._gone = threading.Event()
        self._changing = threading.Lock()
        self.facts: Mapping[str, Any] = {}
        self._reader = threading.Thread(target=self._read, name=f"warden-{node}", daemon=True)
        self._pinger = threading.Thread(target=self._ping, args=(silence_s / _PINGS_PER_SILENCE,), daemon=True)

    @classmethod
    def start(cls, node: str, driver: Programs, changes: Changes, guard: Callable[[], None], silence_s: float) -> Self:
        """Have it run. Raises InfrastructureError where the device has no Python 3.9, and what the transport raises."""
        text = Path(wire.__file__).read_bytes()
        argv = ["python3", "-I", "-S", "-c", _LAUNCHER, str(len(text)), f"{silence_s:g}"]
        conversation, change = driver.converse(argv, changes)
        made = cls(node, conversation, change, guard, silence_s)
        try:
            conversation.send(text)
            made._greet()
        except BaseException:
            made.close()
            raise
        return made

    def _greet(self) -> None:
        self._reader.start()
        try:
            _, body = self._answer(0, _HELLO_S, "greet")
        except InfrastructureError as error:
            raise InfrastructureError(
                "no process can be started on this device",
                where=self.node,
                found=self._conversation.said().strip() or error.message,
                expected="python3, 3.9 or newer, in the PATH of commands over SSH",
            ) from None
        self.facts = json.loads(body)
        self._pinger.start()

    @property
    def alive(self) -> bool:
        """Whether it answers, as far as is known."""
        return not self._gone.is_set()

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        fds: Mapping[int, Handed],
        log: Path | None = None,
        separate: bool = False,
    ) -> RigProcess:
        """Start a process; ``separate``: its standard error is kept apart. Raises InfrastructureError."""
        number = next(self._numbers)
        process = Started(
            self.node, tuple(argv), log, lambda code: self._send(wire.SIGNAL, number, wire.CODE.pack(code)), fds
        )
        answers: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        request = {
            "argv": list(argv),
            "env": dict(env),
            "separate": separate,
            "fds": {str(number): each.request() for number, each in fds.items()},
        }
        with self._changing:
            self._processes[number], self._answers[number] = process, answers
        try:
            if not argv:
                raise InfrastructureError("an empty command line cannot be started", where=self.node)
            self._send(wire.START, number, json.dumps(request).encode())
            kind, body = self._answer(number, _ANSWER_S, f"start {argv[0]}")
            if kind == wire.REFUSED:
                raise InfrastructureError(
                    f"{argv[0]} cannot be started",
                    where=self.node,
                    found=json.loads(body)["text"],
                    remedy="the program has to be on the device, in PATH or given by its path",
                )
        except BaseException:
            with self._changing:
                self._processes.pop(number, None)
            process.ended(-signal.SIGKILL)
            raise
        finally:
            with self._changing:
                self._answers.pop(number, None)
        process.begin(lambda fd, data: self._give(number, fd, data))
        return RigProcess(process)

    def files(self, paths: Sequence[str]) -> dict[str, str | None]:
        """The texts of files on the device as they are now, all at about one moment; None for one that is not there."""
        _, body = self._asked(wire.FILES, json.dumps(list(paths)).encode(), "read files")
        texts: dict[str, str | None] = json.loads(body)
        return texts

    def clock(self) -> ClockReading:
        """The device's clocks as it answers."""
        _, body = self._asked(wire.CLOCK, b"", "tell its clock")
        return ClockReading(*wire.CLOCKS.unpack(body))

    def close(self) -> None:
        """End it, and with it every process that it started."""
        self._closed.set()
        self._conversation.close()
        if self._reader.is_alive() and threading.current_thread() is not self._reader:
            self._reader.join(_ANSWER_S)
        # Its processes end by themselves with its input, whoever is there to see it.
        with contextlib.suppress(BedError):
            self._journalled.undone()

    # -- frames -----------------------------------------------------------------------------------------------------

    def _asked(self, kind: bytes, body: bytes, what: str) -> tuple[bytes, bytes]:
        number = next(self._numbers)
        with self._changing:
            self._answers[number] = queue.SimpleQueue()
        try:
            self._send(kind, number, body)
            return self._answer(number, _ANSWER_S, what)
        finally:
            with self._changing:
                self._answers.pop(number, None)

    def _answer(self, number: int, timeout_s: float, what: str) -> tuple[bytes, bytes]:
        answers = self._answers[number]
        if self._gone.is_set() and answers.empty():
            raise self._lost(what)
        try:
            answer = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise InfrastructureError(
                f"the device did not {what} in time", where=self.node, expected=f"an answer within {timeout_s:g} s"
            ) from None
        if answer is None:
            raise self._lost(what)
        return answer

    def _lost(self, what: str) -> InfrastructureError:
        found = "" if self._closed.is_set() else self._conversation.said().strip()
        return InfrastructureError(
            f"the connection ended before the device could {what}", where=self.node, found=found or "end of its output"
        )

    def _give(self, number: int, fd: int, data: bytes) -> None:
        # A program that has ended reads nothing more, nor does one of a device that is gone.
        with contextlib.suppress(BedError):
            self._send(wire.INPUT, number, wire.FD.pack(fd) + data)

    def _send(self, kind: bytes, number: int, body: bytes) -> None:
        self._guard()
        with self._writing:
            self._conversation.send(wire.HEAD.pack(kind, number, len(body)) + body)

    def _ping(self, every_s: float) -> None:
        while not self._gone.wait(every_s):
            try:
                self._send(wire.PING, 0, b"")
            except BedError:
                # The lease is over, or the device gone: it ends everything by itself, and sooner without an input.
                self._conversation.close()
                return

    def _read(self) -> None:
        try:
            while True:
                head = self._exactly(wire.HEAD.size)
                if head is None:
                    break
                kind, number, length = wire.HEAD.unpack(head)
                body = self._exactly(length)
                if body is None:
                    break
                self._take(kind, number, body)
        finally:
            self._gone.set()
            self._all_ended()

    def _exactly(self, count: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < count:
            data = self._conversation.receive(count - len(parts))
            if not data:
                return None
            parts += data
        return bytes(parts)

    def _take(self, kind: bytes, number: int, body: bytes) -> None:
        with self._changing:
            process, answers = self._processes.get(number), self._answers.get(number)
        if kind in (wire.HELLO, wire.RUNNING, wire.REFUSED, wire.FILES, wire.CLOCK):
            if answers is not None:
                answers.put((kind, body))
        elif process is None:
            return
        elif kind == wire.OUTPUT:
            process.printed(body)
        elif kind == wire.ERRORS:
            process.complained(body)
        elif kind == wire.DATA:
            (fd,) = wire.FD.unpack_from(body)
            process.wrote(fd, body[wire.FD.size :])
        elif kind == wire.MEMORY:
            fd, at = wire.AT.unpack_from(body)
            process.changed(fd, at, body[wire.AT.size :])
        elif kind == wire.ENDED:
            with self._changing:
                self._processes.pop(number, None)
            process.ended(wire.CODE.unpack(body)[0])

    def _all_ended(self) -> None:
        with self._changing:
            processes, self._processes = dict(self._processes), {}
            answers = list(self._answers.values())
        for process in processes.values():
            process.ended(-signal.SIGKILL, lost=f"the connection to {self.node} ended")
        for waiting in answers:
            waiting.put(None)
