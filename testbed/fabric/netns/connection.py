"""Requests to a keeper and its answers, in step; what became of a keeper that is gone."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import IO, TypeVar

from testbed.errors import InfrastructureError
from testbed.fabric.netns import channel
from testbed.fabric.netns.channel import ChannelClosedError, Message

_REQUESTS_AHEAD = 2

_About = TypeVar("_About")


class RequestRefusedError(InfrastructureError):
    """The keeper could not do what it was asked; ``reason`` says why, in the kernel's words where it was the kernel,
    and ``number`` is its errno or 0.
    """

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(
            f"the fabric's keeper refused a request: {reason}",
            found=errno.errorcode.get(number, "") if number else "",
        )
        self.reason = reason
        self.number = number


class Connection:
    """Synchronous requests to one keeper; safe to use from several threads."""

    def __init__(self, sock: socket.socket, warden: subprocess.Popen[bytes] | None, stderr: IO[bytes] | None) -> None:
        self._sock = sock
        self._warden = warden
        self._warden_pid = None if warden is None else warden.pid
        self._stderr = stderr
        self._lock = threading.Lock()
        self._closed = False
        self.facts: Message = {}

    def send(self, message: Message, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send a request without waiting; its answer must be taken with :meth:`answer`, in order."""
        try:
            channel.send(self._sock, message, payload, fds)
        except (ChannelClosedError, TimeoutError, OSError) as error:
            raise self._lost("the keeper is gone", error) from error

    def answer(self) -> tuple[Message, bytes]:
        """Take the answer of a request sent before. Raises InfrastructureError for a refused one."""
        try:
            answer, payload, _ = channel.receive(self._sock)
        except (ChannelClosedError, TimeoutError, OSError) as error:
            raise self._lost("the keeper is gone", error) from error
        if not answer.pop("ok"):
            raise RequestRefusedError(answer["error"], answer["errno"])
        return answer, payload

    def request(self, message: Message, payload: bytes = b"", fds: Sequence[int] = ()) -> tuple[Message, bytes]:
        """Send a request and return its answer. Raises InfrastructureError."""
        with self._in_step():
            self.send(message, payload, fds)
            return self.answer()

    def pipelined(
        self, requests: Iterable[tuple[_About, Message, bytes]]
    ) -> Generator[tuple[_About, Message, bytes], None, None]:
        """Send requests while earlier ones are carried out; what each is about, with its answer, in order.

        The keeper then always has work while its client prepares the next request or looks at the last answer. Other
        threads' requests wait until the iterator is exhausted or closed. Raises InfrastructureError at the first that
        is refused.
        """
        waiting: deque[_About] = deque()
        with self._in_step():
            try:
                for about, message, payload in requests:
                    if len(waiting) == _REQUESTS_AHEAD:
                        yield waiting.popleft(), *self.answer()
                    self.send(message, payload)
                    waiting.append(about)
                while waiting:
                    yield waiting.popleft(), *self.answer()
            except (InfrastructureError, GeneratorExit):
                # An answer left in the channel would be taken for that of the next request.
                for _ in waiting:
                    with contextlib.suppress(InfrastructureError):
                        self.answer()
                raise

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[None]:
        """One thread at a time, and an end of the connection where requests and answers are no longer in step."""
        with self._lock:
            try:
                yield
            except (InfrastructureError, GeneratorExit):
                raise
            except BaseException:
                # Interrupted between a request and its answer, or within one: the rest of it would be taken for the
                # answer of the next.
                self.close()
                raise

    def close(self) -> None:
        """Close the connection; a fabric that was not detached ends with it."""
        if self._closed:
            return
        self._closed = True
        self._sock.close()
        if self._warden is not None:
            try:
                self._warden.wait(10)
            except subprocess.TimeoutExpired:
                self._warden.kill()
                self._warden.wait()
        if self._stderr is not None:
            self._stderr.close()

    def _lost(self, message: str, error: BaseException) -> InfrastructureError:
        text = ""
        if self._stderr is not None and not self._stderr.closed:
            self._stderr.seek(0)
            text = self._stderr.read(4000).decode(errors="replace").strip()
        with contextlib.suppress(OSError):
            self.close()
        return InfrastructureError(
            message,
            found=text or str(error) or type(error).__name__,
            remedy="if you did not end it yourself, `testbed doctor` looks for what this machine lacks",
        )
