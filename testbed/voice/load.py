"""A load of synthetic calls on a relay: connectivity checks, then RTP-shaped packets, and what became of each of them.

Clients are sockets of this process, one a call; a sink in a process of its own plays the transceiver. What is sent
and what arrives is kept packet by packet, with the kernel's receive stamps.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from testbed.errors import InfrastructureError, UsageError
from testbed.voice import rtp, stun, ufrag
from testbed.voice.addresses import Address
from testbed.voice.keys import Keys
from testbed.voice.outcome import Outcome
from testbed.voice.sink import SO_TIMESTAMPNS

_CHECKS: Final = 5
_CHECK_S: Final = 0.4
_AT_ONCE: Final = 64
_WAIT_S: Final = 0.5
_SPARE_DESCRIPTORS: Final = 64
_BUFFER_BYTES: Final = 8 << 20
_PACKET: Final = struct.Struct(">BBHIIIq")
assert _PACKET.size == rtp.PACKET.itemsize
_STAMP: Final = struct.Struct("=qq")


@dataclass(frozen=True)
class Plan:
    """What load to make.

    Attributes:
        relay: the relay's public address.
        sink: where the transceiver of the table is.
        keys: at least what a transceiver has.
        cluster, transceiver: which it is.
        calls: how many.
        rate: packets/s of each call; 0: as fast as can be.
        size: bytes of a packet.
        echo: whether the sink sends each packet back.
        bind: the clients' own address with port 0; None: the kernel chooses.
    """

    relay: Address
    sink: Address
    keys: Keys
    cluster: int
    transceiver: int
    calls: int = 100
    rate: float = 50.0
    size: int = 160
    echo: bool = True
    bind: Address | None = None


class Load:
    """Calls that are set up, and go on as long as they are asked to."""

    def __init__(self, plan: Plan) -> None:
        """Open the sockets and start the sink. Raises UsageError and InfrastructureError."""
        if plan.size < rtp.LEAST_BYTES:
            raise UsageError("the packets are too small", found=str(plan.size), expected=f"at least {rtp.LEAST_BYTES}")
        _need_descriptors(plan.calls + _SPARE_DESCRIPTORS)
        self.plan = plan
        self._result = os.memfd_create("sink", os.MFD_CLOEXEC)
        sink = _udp(plan.sink)
        with sink:
            self._sink = subprocess.Popen(
                [sys.executable, "-m", "testbed.voice.sink"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(sink.fileno(), self._result),
            )
            options: dict[str, Any] = {"socket": sink.fileno(), "result": self._result, "echo": plan.echo}
            options["keys"] = plan.keys.for_transceiver().to_json()
            assert self._sink.stdin is not None
            assert self._sink.stdout is not None
            self._sink.stdin.write(json.dumps(options).encode() + b"\n")
            self._sink.stdin.flush()
            if self._sink.stdout.readline() != b"ready\n":
                raise InfrastructureError("the sink does not start", where=str(plan.sink))
        self._clients = [_udp(plan.bind or Address(bytes(16), 0)) for _ in range(plan.calls)]
        self._by_fd = {client.fileno(): call for call, client in enumerate(self._clients)}
        self._epoll = select.epoll()
        for client in self._clients:
            client.connect(plan.relay.pair)
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._epoll.register(client, select.EPOLLIN)
        self._ufrags = [
            ufrag.encode(plan.cluster, plan.transceiver, *plan.keys.ufrag.current) for _ in range(plan.calls)
        ]
        self._up: set[int] = set()
        self._numbers = [0] * plan.calls
        self._sent: list[tuple[int, int, int]] = []
        self._returned: list[tuple[int, int, int]] = []

    def set_up(self) -> int:
        """Send connectivity checks until all are answered, a few times; returns how many calls are set up."""
        for _ in range(_CHECKS):
            waiting = [call for call in range(self.plan.calls) if call not in self._up]
            for start in range(0, len(waiting), _AT_ONCE):
                for call in waiting[start : start + _AT_ONCE]:
                    self._send(call, stun.binding_request(self._ufrags[call]))
                self._receive(0)
            deadline = time.monotonic() + _CHECK_S
            while len(self._up) < self.plan.calls and time.monotonic() < deadline:
                self._receive(0.02)
            if len(self._up) == self.plan.calls:
                break
        return len(self._up)

    def check(self, call: int) -> None:
        """Send another connectivity check of a call, as its client would in time."""
        self._send(call, stun.binding_request(self._ufrags[call]))

    def run(self, seconds: float) -> None:
        """Send on all calls in turn for a time, and take what comes back."""
        plan, start = self.plan, time.monotonic()
        whole = plan.rate * plan.calls
        done = 0
        while (now := time.monotonic() - start) < seconds:
            due = min(int(now * whole) - done, plan.calls) if whole else _AT_ONCE
            for position in range(done, done + due):
                self._packet(position % plan.calls)
            done += due
            self._receive(0 if due else min(0.001, 1 / whole if whole else 0))

    def finish(self) -> Outcome:
        """Wait for what is still under way, end the sink, and tell what was seen. Raises InfrastructureError."""
        quiet = time.monotonic() + _WAIT_S
        while time.monotonic() < quiet:
            if self._receive(0.05):
                quiet = time.monotonic() + _WAIT_S
        assert self._sink.stdin is not None
        self._sink.stdin.close()
        if self._sink.wait(30):
            raise InfrastructureError("the sink failed", found=f"exit code {self._sink.returncode}")
        with open(os.dup(self._result), "rb") as file:
            file.seek(0)
            seen = np.load(file)
            arrived, echoed = seen["arrived"], seen["echoed"]
        return Outcome(
            np.array(self._sent, rtp.SEEN), arrived, echoed, np.array(self._returned, rtp.SEEN), len(self._up)
        )

    def close(self) -> None:
        """Close all, whatever has become of it."""
        if self._sink.poll() is None:
            self._sink.kill()
        for pipe in (self._sink.stdin, self._sink.stdout):
            if pipe is not None:
                pipe.close()
        self._sink.wait()
        self._epoll.close()
        for client in self._clients:
            client.close()
        os.close(self._result)

    def _packet(self, call: int) -> None:
        number = self._numbers[call]
        self._numbers[call] = number + 1
        t_ns = time.time_ns()
        ticks = number * rtp.TICKS & 0xFFFFFFFF
        header = _PACKET.pack(rtp.FIRST, rtp.PAYLOAD_TYPE, number & 0xFFFF, ticks, call, number, t_ns)
        if self._send(call, header + bytes(self.plan.size - rtp.LEAST_BYTES)):
            self._sent.append((call, number, t_ns))

    def _send(self, call: int, payload: bytes) -> bool:
        try:
            self._clients[call].send(payload)
        except (BlockingIOError, ConnectionRefusedError):
            return False
        return True

    def _receive(self, wait_s: float) -> int:
        """Take what has come to any client; returns how many datagrams."""
        count = 0
        for fd, _ in self._epoll.poll(wait_s, self.plan.calls):
            call = self._by_fd[fd]
            for _ in range(_AT_ONCE):
                try:
                    data, control, _, _ = self._clients[call].recvmsg(2048, 64)
                except (BlockingIOError, ConnectionRefusedError):
                    break
                count += 1
                if data[:1] == bytes([rtp.FIRST]) and len(data) >= rtp.LEAST_BYTES:
                    seconds, ns = _STAMP.unpack_from(control[0][2])
                    number = int.from_bytes(data[12:16], "big")
                    self._returned.append((call, number, seconds * 1_000_000_000 + ns))
                else:
                    self._up.add(call)
        return count


@contextmanager
def load(plan: Plan) -> Iterator[Load]:
    """A load that is closed at the end of the block."""
    made = Load(plan)
    try:
        yield made
    finally:
        made.close()


def _udp(address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    try:
        sock.bind(address.pair)
    except OSError as error:
        sock.close()
        raise UsageError("the address cannot be bound", where=str(address), found=error.strerror or "") from None
    return sock


def _need_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise UsageError(
                "so many sockets may not be open",
                found=f"at most {hard:,}",
                expected=f"{count:,}",
                remedy="fewer calls, or a higher `ulimit -Hn`",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
