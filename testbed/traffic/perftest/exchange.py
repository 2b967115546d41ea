"""The conversation of the two ends beside the fabric: lines of JSON, bounded and checked, over a Unix socket or TCP.

Hosts of a namespace fabric share a directory and no network: there a server listens on a Unix socket named after host
and port. Elsewhere it listens on TCP, as perftest does.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import InfrastructureError

#: Of a line. The longest is that with the attributes of all queue pairs.
LINE_MOST = 1 << 20
#: How long the other end may take over each step but the measurement.
STEP_S = 20.0
_READ = 1 << 16


@dataclass(frozen=True)
class Meeting:
    """Where the two ends meet.

    Attributes:
        port: a number that both are given.
        directory: where Unix sockets lie; None: TCP.
    """

    port: int
    directory: Path | None

    def path(self, host: str) -> str:
        """The Unix socket of a server on a host."""
        assert self.directory is not None
        return str(self.directory / f"perftest-{host}-{self.port}")

    @property
    def method(self) -> str:
        """As perftest's header names it."""
        return "Ethernet" if self.directory is None else "Unix socket"


class Channel:
    """One end of the conversation. Whatever the other end does wrong is an InfrastructureError."""

    def __init__(self, sock: socket.socket, other: str) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._other = other
        self._text = b""

    def fileno(self) -> int:
        """For poll()."""
        return self._sock.fileno()

    def send(self, kind: str, **fields: Any) -> None:
        """Say something, waiting for room at most as long as a step may take."""
        rest = memoryview(json.dumps({"kind": kind, **fields}).encode() + b"\n")
        deadline = time.monotonic() + STEP_S
        while rest:
            try:
                rest = rest[self._sock.send(rest, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline, kind)
            except OSError as error:
                raise self._gone() from error

    def poll(self) -> dict[str, Any] | None:
        """What the other end has said, if it has; does not wait."""
        while b"\n" not in self._text:
            if len(self._text) > LINE_MOST:
                raise self.wrong(f"a line of more than {LINE_MOST} bytes")
            try:
                got = self._sock.recv(_READ)
            except BlockingIOError:
                return None
            except OSError as error:
                raise self._gone() from error
            if not got:
                raise self._gone()
            self._text += got
        line, _, self._text = self._text.partition(b"\n")
        return self._read(line)

    def expect(self, kind: str, deadline: float | None = None) -> dict[str, Any]:
        """Wait for a message of this kind."""
        deadline = time.monotonic() + STEP_S if deadline is None else deadline
        while (message := self.poll()) is None:
            self._wait(select.POLLIN, deadline, kind)
        return self.require(message, kind)

    def require(self, message: dict[str, Any], kind: str) -> dict[str, Any]:
        """The message, which must be of this kind."""
        if message["kind"] != kind:
            raise self.wrong(f"{message['kind']!r} where {kind!r} was due"[:200])
        return message

    def field(self, message: dict[str, Any], name: str, kind: type) -> Any:
        """A field, which must be there and of this type."""
        value = message.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(f"{message['kind']!r} with {name} {value!r}"[:200])
        return value

    def close(self) -> None:
        """End the conversation; a word of farewell is for the caller to say."""
        self._sock.close()

    def _read(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise self.wrong(repr(line[:100])) from None
        if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
            raise self.wrong(repr(line[:100]))
        if message["kind"] == "error":
            raise InfrastructureError(
                "the other end gave up", where=self._other, found=str(message.get("text", "no reason told"))[:2000]
            )
        return message

    def _wait(self, event: int, deadline: float, what: str) -> None:
        poll = select.poll()
        poll.register(self._sock, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise InfrastructureError(
                "the other end does not answer", where=self._other, expected=f"{what!r} within {STEP_S:.0f} s"
            )

    def _gone(self) -> InfrastructureError:
        return InfrastructureError("the other end has gone", where=self._other, remedy="its own output says why")

    def wrong(self, found: str) -> InfrastructureError:
        """The other end said what cannot be."""
        return InfrastructureError(
            "the other end says what cannot be understood",
            where=self._other,
            found=found,
            remedy="run the same program, of the same version, at both ends",
        )


@contextlib.contextmanager
def listening(meeting: Meeting, host: str) -> Iterator[socket.socket]:
    """The socket that a server waits on; a Unix socket is gone from the directory afterwards.

    Raises InfrastructureError where the port is taken.
    """
    if meeting.directory is None:
        with _tcp_listener(meeting.port) as listener:
            yield listener
        return
    path = meeting.path(host)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        try:
            _bind(listener, path)
        except OSError as error:
            raise _taken(meeting.port, error) from error
        try:
            listener.listen(1)
            yield listener
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()


def _bind(listener: socket.socket, path: str) -> None:
    """Bind, in place of a socket that nobody listens on any more: a server that was killed left it."""
    try:
        listener.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or _answers(path):
            raise
        Path(path).unlink(missing_ok=True)
        listener.bind(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(STEP_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def _tcp_listener(port: int) -> socket.socket:
    try:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", port), family=family, backlog=1, dualstack_ipv6=dual)
    except OSError as error:
        raise _taken(port, error) from error


def _taken(port: int, error: OSError) -> InfrastructureError:
    return InfrastructureError(
        f"a server cannot listen on port {port}",
        found=error.strerror or str(error),
        remedy="another server is running there: end it, or give both ends another -p",
    )


def accept(listener: socket.socket) -> Channel:
    """Wait for a client, as long as it takes."""
    connection, address = listener.accept()
    if connection.family == socket.AF_UNIX:
        return Channel(connection, "client")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return Channel(connection, f"client {address[0]}")


def connect(meeting: Meeting, server: str) -> Channel:
    """Connect to the server on a host. Raises InfrastructureError where there is none."""
    if meeting.directory is None:
        try:
            sock = socket.create_connection((server, meeting.port), timeout=STEP_S)
        except OSError as error:
            raise _absent(server, meeting.port, error) from error
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return Channel(sock, f"server on {server}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(STEP_S)
        sock.connect(meeting.path(server))
    except OSError as error:
        sock.close()
        raise _absent(server, meeting.port, error) from error
    return Channel(sock, f"server on {server}")


def _absent(server: str, port: int, error: OSError) -> InfrastructureError:
    return InfrastructureError(
        "no server can be reached",
        where=f"{server}, port {port}",
        found=error.strerror or str(error),
        remedy="start the program without a host there first, with the same -p",
    )
