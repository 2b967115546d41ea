"""See every probe on every link: one executed process with a packet ring in every namespace of a fabric.

python -m tests.netns.wire_tap NODES PORT      descriptors: namespaces from 16 on, 3 ready, 4 the rows; ends by SIGTERM
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from testbed.fabric.netns import processes
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.kernel import inside
from testbed.traffic.probes import wire
from testbed.traffic.probes.receiver import read_block
from testbed.traffic.probes.sockets import Ring

#: A probe that arrived at an interface: node by its number in the lab's order, outer destination as it was there.
SEEN = np.dtype([("run_id", "u4"), ("node", "u4"), ("ifindex", "u4"), ("flow", "u4"), ("ev", "u4"), ("to", "V16")])
_FIRST_FD, _READY_FD, _ROWS_FD = 16, 3, 4
_BLOCKS, _BLOCK_BYTES, _RETIRE_MS = 8, 1 << 16, 40
_STATUS, _USER, _ETH_P_ALL = 2, 1, 3
_READY_S = 20.0
_THREADS = 16


def main() -> None:
    stop_reader, stop_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(stop_writer)
    signal.signal(signal.SIGTERM, lambda *_: None)
    # The kernel waits some 10 ms for its processors with every ring, opening and closing: waits that can be shared.
    pool = ThreadPoolExecutor(_THREADS)
    port = int(sys.argv[2])
    rings = list(pool.map(lambda node: open_ring(node, port), range(int(sys.argv[1]))))
    poll = select.poll()
    poll.register(stop_reader, select.POLLIN)
    numbers = {ring.socket.fileno(): node for node, ring in enumerate(rings)}
    for fd in numbers:
        poll.register(fd, select.POLLIN)
    position = [0] * len(rings)
    os.write(_READY_FD, b"ready\n")
    until = float("inf")
    while time.monotonic() < until:
        for fd, _ in poll.poll(10):
            if fd == stop_reader:
                os.read(stop_reader, 64)
                # A block that is not full is handed over by its timer.
                until = time.monotonic() + 3 * _RETIRE_MS / 1000
            else:
                node = numbers[fd]
                position[node] = drain(node, rings[node], position[node], port)
    for node, ring in enumerate(rings):
        drain(node, ring, position[node], port)
        if ring.take_drops():
            sys.exit(f"the ring of node {node} was full")
    list(pool.map(close_ring, rings))


def open_ring(node: int, port: int) -> Ring:
    with inside(_FIRST_FD + node, str(node)):
        ring = Ring(_BLOCKS, _BLOCK_BYTES, _RETIRE_MS, port)
        # Of every protocol: a ring of IPv6 alone may get its packet after the kernel has shifted its uSIDs.
        bind_packets(ring.socket)
    os.close(_FIRST_FD + node)
    return ring


def close_ring(ring: Ring) -> None:
    # Both the mapping and the socket hold it; what is mapped goes with the process.
    ring.socket.close()


def bind_packets(sock: socket.socket) -> None:
    """bind(2) to every protocol on all interfaces, which Python's own bind cannot."""
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(_ETH_P_ALL), 0, 0, 0, 0)
    if ctypes.CDLL(None, use_errno=True).bind(sock.fileno(), address, len(address)):
        raise OSError(ctypes.get_errno(), "bind")


def drain(node: int, ring: Ring, block: int, port: int) -> int:
    """Write the rows of what a ring has handed over; the block that comes next."""
    status = ring.memory[:, :12].view(np.uint32)[:, _STATUS]
    while status[block] & _USER:
        captured = read_block(ring.memory[block])
        headers = wire.decode(captured.packets, captured.heads["captured"], captured.heads["length"], port)
        rows = np.zeros(len(captured.heads), SEEN)
        rows["node"] = node
        rows["ifindex"] = captured.heads["ifindex"]
        rows["run_id"], rows["flow"], rows["ev"] = headers.run_id, headers.flow, headers.ev
        rows["to"] = np.ascontiguousarray(captured.packets[:, 24:40]).view("V16")[:, 0]
        os.write(_ROWS_FD, rows.tobytes())
        status[block] = 0
        block = (block + 1) % _BLOCKS
    return block


class Tap:
    """What was seen; filled when the tap is closed."""

    def __init__(self) -> None:
        self.rows: npt.NDArray[np.void] = np.empty(0, SEEN)


@contextmanager
def tapped(fabric: NetnsFabric, port: int = wire.STAMP_PORT) -> Iterator[Tap]:
    """Watch all links while the block runs, for probes to a UDP port."""
    nodes = list(fabric.plan.namespaces)
    tap = Tap()
    ready, theirs = os.pipe2(os.O_CLOEXEC)
    with processes.open_memory() as rows:
        try:
            process = processes.start(
                fabric.client,
                nodes[0],
                fabric.plan.namespaces[nodes[0]],
                [sys.executable, "-m", "tests.netns.wire_tap", str(len(nodes)), str(port)],
                {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
                fds={_READY_FD: theirs, _ROWS_FD: rows.fileno()},
                namespace_fds={_FIRST_FD + number: fabric.plan.namespaces[node] for number, node in enumerate(nodes)},
            )
        finally:
            os.close(theirs)
        try:
            poll = select.poll()
            poll.register(ready, select.POLLIN)
            assert poll.poll(_READY_S * 1000), "the wire tap was not ready in time"
            assert os.read(ready, 64), process.output()
            yield tap
        finally:
            os.close(ready)
            code = process.stop(grace_s=_READY_S)
        assert code == 0, process.output()
        rows.seek(0)
        tap.rows = np.frombuffer(rows.read(), SEEN)


if __name__ == "__main__":
    main()
