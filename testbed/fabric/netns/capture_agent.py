"""Executed in a fabric: record the packets on many ports, in many namespaces, as pcapng.

Descriptors: 0 the request (JSON: ``ports``, each ``[name, namespace descriptor, interface]``, ``snap``), 1 where the
pcapng goes, 3 gets a line when every ring records. SIGTERM ends it: what the rings hold is still written, then the
totals. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time

from testbed.fabric.netns import pcapng
from testbed.fabric.netns.ring import BLOCK, Ring
from testbed.fabric.netns.syscalls import CLONE_NEWNET, setns

_READY_FD = 3
#: All rings together take no more memory than this, where that leaves each at least the least number of blocks.
_MEMORY = 64 << 20
_LEAST_BLOCKS, _MOST_BLOCKS = 4, 32
_RETIRE_MS = 20
_THREADS = 32


def main(_argv: list[str]) -> None:
    """Record until SIGTERM, or until whoever reads is gone."""
    with open(0, "rb", closefd=False) as source:
        request = json.loads(source.read())
    wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_writer)
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        nodes = _open(request["ports"], request["snap"])
        _write(pcapng.head([name for name, _, _ in request["ports"]], request["snap"]))
        os.write(_READY_FD, b"recording\n")
        os.close(_READY_FD)
        _record(nodes, wake_reader)
    except BrokenPipeError:
        return
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        sys.exit(4)


class _Node:
    """The captured ports of one node: their shared ring, and interface index → number of the port and its packets."""

    def __init__(self, namespace: int, ports: list[tuple[int, str]], blocks: int, snap: int) -> None:
        setns(namespace, CLONE_NEWNET)
        self.numbers = {socket.if_nametoindex(interface): number for number, interface in ports}
        self.received = dict.fromkeys(self.numbers, 0)
        self.ring = Ring(ports[0][1] if len(ports) == 1 else "", blocks=blocks, retire_ms=_RETIRE_MS, snap=snap)

    def drain(self) -> None:
        """Write what the ring has handed over."""
        parts = []
        for interface, t_ns, outgoing, length, data in self.ring.packets():
            number = self.numbers.get(interface)
            if number is not None:
                self.received[interface] += 1
                parts.append(pcapng.packet(number, t_ns, outgoing, length, data))
        if parts:
            _write(b"".join(parts))

    def write_totals(self) -> None:
        """Write what each port got."""
        dropped = self.ring.dropped()
        for interface, number in self.numbers.items():
            _write(pcapng.statistics(number, time.time_ns(), self.received[interface], dropped))
            dropped = 0


def _open(ports: list[tuple[str, int, str]], snap: int) -> list[_Node]:
    by_namespace: dict[int, list[tuple[int, str]]] = {}
    for number, (_, namespace, interface) in enumerate(ports):
        by_namespace.setdefault(namespace, []).append((number, interface))
    blocks = min(_MOST_BLOCKS, max(_LEAST_BLOCKS, _MEMORY // BLOCK // max(1, len(by_namespace))))
    opened: list[_Node] = []
    failed: list[OSError] = []
    waiting = list(by_namespace.items())

    def work() -> None:
        while waiting and not failed:
            try:
                namespace, listed = waiting.pop()
            except IndexError:
                return
            try:
                opened.append(_Node(namespace, listed, blocks, snap))
            except OSError as error:
                failed.append(OSError(error.errno, f"{ports[listed[0][0]][0]}: {error.strerror}"))
            os.close(namespace)

    # The kernel waits some 10 ms for other processors with every ring: these waits can be shared.
    threads = [threading.Thread(target=work) for _ in range(min(_THREADS, len(waiting)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return opened


def _record(nodes: list[_Node], wake: int) -> None:
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    # Whoever reads a pipe and goes away shows as an error on it.
    poll.register(1, 0)
    by_fd = {node.ring.fileno(): node for node in nodes}
    for fd in by_fd:
        poll.register(fd, select.POLLIN | select.POLLERR)
    deadline: float | None = None
    while deadline is None or time.monotonic() < deadline:
        timeout = None if deadline is None else max(1.0, 1000 * (deadline - time.monotonic()))
        for fd, events in poll.poll(timeout):
            if fd == wake:
                # A packet that came before now is handed over within the time a block waits to be filled.
                deadline = deadline or time.monotonic() + 3 * _RETIRE_MS / 1000
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 64)
            elif fd == 1:
                if events & (select.POLLERR | select.POLLNVAL):
                    return
            else:
                by_fd[fd].drain()
    for node in nodes:
        node.drain()
        node.write_totals()


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
