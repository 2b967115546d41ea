"""Executed on a host of a fabric: send probes along source-routed legs and tell which come back, and when.

Descriptors: 0 the request (JSON, see :mod:`testbed.fabric.netns.ping`), 1 one JSON object a line for each probe sent
that came back, did not in time, or could not be sent. SIGTERM and SIGINT end it with the probes under way still told.

A probe is UDP in IPv6 in IPv6: the kernel adds the outer header, whose destination is the uSID list; the inner one
never changes, so its checksum holds. Sent at CLOCK_REALTIME before the system call, received at the kernel's own stamp.
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from testbed.fabric.netns.syscalls import CLONE_NEWNET, setns

_IPV6_IN_IPV6 = 41
_UDP = 17
#: Discard, should a probe ever meet a socket.
_PORT = 9
_MAGIC = b"mrc-ping"
_HEAD = struct.Struct("!IHH16s16s")
_UDP_HEAD = struct.Struct("!HHHH")
# Magic, run, leg, sequence number, sent at (ns).
_BODY = struct.Struct("!8sIIQQ")
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_RECEIVE_BUFFER = 1 << 20


@dataclass(frozen=True)
class _Under:
    """A probe under way."""

    leg: int
    sequence: int
    sent_ns: int
    deadline: float


def main(_argv: list[str]) -> None:
    """Probe until the count is reached or a signal comes."""
    with open(0, "rb", closefd=False) as source:
        request = json.loads(source.read())
    try:
        _Pinger(request).run()
    except BrokenPipeError:
        return
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        sys.exit(4)


class _Pinger:
    def __init__(self, request: dict[str, Any]) -> None:
        self._run: int = request["run"]
        self._interval: float = request["interval_s"]
        self._timeout: float = request["timeout_s"]
        self._count: int | None = request["count"]
        self._destinations: list[str] = [leg["destination"] for leg in request["legs"]]
        self._ends: list[int] = [leg["to"] for leg in request["legs"]]
        self._inner = [_inner_head(request["inner_source"], leg["inner_destination"]) for leg in request["legs"]]
        self._sockets = [_open(namespace) for namespace in request["namespaces"]]
        self._under: dict[tuple[int, int], _Under] = {}
        self._order: deque[tuple[int, int]] = deque()
        self._stopping = False

    def run(self) -> None:
        wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        poll = select.poll()
        poll.register(wake_reader, select.POLLIN)
        # Nobody reads any more: the client is gone.
        poll.register(1, 0)
        by_fd = {sock.fileno(): sock for sock in self._sockets}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        rounds = 0
        due = time.monotonic()
        while True:
            more = not self._stopping and (self._count is None or rounds < self._count)
            if more and time.monotonic() >= due:
                self._send(rounds)
                rounds += 1
                due += self._interval
                continue
            self._expire()
            if not more and not self._under:
                return
            waits = [due] if more else []
            if self._order:
                waits.append(self._under[self._order[0]].deadline)
            for fd, _ in poll.poll(max(0.0, 1000 * (min(waits) - time.monotonic()))):
                if fd == 1:
                    return
                if fd in by_fd:
                    self._receive(by_fd[fd])
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_reader, 64)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _send(self, sequence: int) -> None:
        for leg, destination in enumerate(self._destinations):
            sent_ns = time.time_ns()
            packet = self._packet(leg, sequence, sent_ns)
            try:
                self._sockets[0].sendto(packet, (destination, 0))
            except OSError as error:
                _tell({"leg": leg, "seq": sequence, "error": error.strerror})
                continue
            key = leg, sequence
            self._under[key] = _Under(leg, sequence, sent_ns, time.monotonic() + self._timeout)
            self._order.append(key)

    def _packet(self, leg: int, sequence: int, sent_ns: int) -> bytes:
        body = _BODY.pack(_MAGIC, self._run, leg, sequence, sent_ns)
        length = _UDP_HEAD.size + len(body)
        head = self._inner[leg]
        checksum = _checksum(
            head[8:] + struct.pack("!HH", length, _UDP) + _UDP_HEAD.pack(_PORT, _PORT, length, 0) + body
        )
        return head + _UDP_HEAD.pack(_PORT, _PORT, length, checksum) + body

    def _receive(self, sock: socket.socket) -> None:
        while True:
            try:
                data, ancillary, _, _ = sock.recvmsg(2048, 128, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if len(data) < _HEAD.size + _UDP_HEAD.size + _BODY.size:
                continue
            magic, run, leg, sequence, sent_ns = _BODY.unpack_from(data, _HEAD.size + _UDP_HEAD.size)
            # Each leg has one place to arrive; a stray elsewhere is somebody else's packet.
            if magic != _MAGIC or run != self._run or leg >= len(self._ends) or sock is not self._arrives(leg):
                continue
            t_ns = _stamp(ancillary)
            if self._under.pop((leg, sequence), None) is not None and t_ns is not None:
                _tell({"leg": leg, "seq": sequence, "ns": t_ns - sent_ns})

    def _arrives(self, leg: int) -> socket.socket:
        return self._sockets[self._ends[leg]]

    def _expire(self) -> None:
        now = time.monotonic()
        while self._order:
            key = self._order[0]
            if key in self._under:
                if self._under[key].deadline > now:
                    return
                del self._under[key]
                _tell({"leg": key[0], "seq": key[1], "lost": True})
            self._order.popleft()


def _open(namespace: int) -> socket.socket:
    setns(namespace, CLONE_NEWNET)
    os.close(namespace)
    sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _IPV6_IN_IPV6)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    return sock


def _inner_head(source: str, destination: str) -> bytes:
    length = _UDP_HEAD.size + _BODY.size
    addresses = (socket.inet_pton(socket.AF_INET6, address) for address in (source, destination))
    return _HEAD.pack(6 << 28, length, _UDP << 8 | 64, *addresses)


def _checksum(data: bytes) -> int:
    """The UDP checksum (RFC 1071) of a pseudo-header and datagram; 0 is sent as 0xFFFF (RFC 8200 section 8.1)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return 0xFFFF - total % 0xFFFF


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            t_ns: int = seconds * 1_000_000_000 + nanoseconds
            return t_ns
    return None


def _tell(result: dict[str, Any]) -> None:
    line = memoryview(json.dumps(result).encode() + b"\n")
    while line:
        line = line[os.write(1, line) :]
