"""Receives probes from packet rings: each block of a ring is decoded as columns, one row per probe of this run.

The filter keeps the same number of bytes of every probe, so the packets of a block lie at equal distances and a block
is a matrix; a block with shorter packets among them is gathered along its chain of offsets.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.errors import InfrastructureError
from testbed.kernel import inside, open_silencer
from testbed.samples import ARRIVAL
from testbed.traffic.probes import wire
from testbed.traffic.probes.control import Control
from testbed.traffic.probes.plan import SIZE_MIN, Port, ReceivePlan
from testbed.traffic.probes.shared import Counter, OfHost, SampleFile, State
from testbed.traffic.probes.sockets import Ring, open_ring

# struct tpacket_block_desc as u32 words: version, offset to private area, status, packets, offset to first packet.
_STATUS, _PACKETS, _FIRST = 2, 3, 4
_USER = 1
#: struct tpacket3_hdr, then sockaddr_ll; the packet starts at ``net``.
_RECORD_HEAD = np.dtype(
    {
        "names": ["next", "seconds", "nanoseconds", "captured", "length", "net", "ifindex"],
        "formats": ["u4", "u4", "u4", "u4", "u4", "u2", "u4"],
        "offsets": [0, 4, 8, 12, 16, 26, 52],
        "itemsize": 68,
    }
)
_NET = 96
_STRIDE = 256
_STATISTICS_NS = 100_000_000
_IDLE_NS = 1_000_000_000


@dataclass(frozen=True)
class Captured:
    """``n`` packets of one block: record heads, and ``(n, 156)`` bytes from the outer IPv6 header on."""

    heads: npt.NDArray[np.void]
    packets: npt.NDArray[np.uint8]


def read_block(block: npt.NDArray[np.uint8]) -> Captured:
    """The packets of one ring block that the kernel handed over (a view where they lie at equal distances)."""
    words = block[:20].view(np.uint32)
    count, first = int(words[_PACKETS]), int(words[_FIRST])
    end = first + count * _STRIDE
    if end <= len(block):
        matrix = block[first:end].reshape(count, _STRIDE)
        heads = matrix[:, : _RECORD_HEAD.itemsize].view(_RECORD_HEAD)[:, 0]
        if (heads["next"][:-1] == _STRIDE).all() and (heads["net"] == _NET).all():
            return Captured(heads, matrix[:, _NET : _NET + SIZE_MIN])
    return _gather(block, count, first)


def _gather(block: npt.NDArray[np.uint8], count: int, first: int) -> Captured:
    nexts = block.view(np.uint32)
    count = min(count, len(block) // _RECORD_HEAD.itemsize)
    offsets = np.empty(count, np.int64)
    at, found = first, 0
    # A chain that leaves the block ends there.
    while found < count and at + _RECORD_HEAD.itemsize <= len(block):
        offsets[found] = at
        found += 1
        step = int(nexts[at // 4])
        if not step:
            break
        at += step
    offsets = offsets[:found]
    heads = block[offsets[:, None] + np.arange(_RECORD_HEAD.itemsize)].view(_RECORD_HEAD)[:, 0]
    starts = offsets + heads["net"]
    inside_block = np.minimum(starts[:, None] + np.arange(SIZE_MIN), len(block) - 1)
    return Captured(heads, block[inside_block])


class Blocks:
    """The blocks of a ring in their order."""

    def __init__(self, ring: Ring) -> None:
        self._memory = ring.memory
        self._status = ring.memory[:, :12].view(np.uint32)[:, _STATUS]
        self._block = 0

    def handed_over(self) -> Iterator[Captured]:
        """Every block that the kernel has handed over; a block is given back when the next one is asked for."""
        while self._status[self._block] & _USER:
            yield read_block(self._memory[self._block])
            self._status[self._block] = 0
            self._block = (self._block + 1) % len(self._status)


class PlaneMap:
    """From interface index to plane, for the ports of one host."""

    def __init__(self, planes: dict[int, int]) -> None:
        self._ifindexes = np.array(sorted(planes), np.int64)
        self._planes = np.array([planes[index] for index in sorted(planes)], np.uint8)

    def of(self, ifindex: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """The plane of each interface, and whether it is a port of the plan."""
        at = np.minimum(np.searchsorted(self._ifindexes, ifindex), len(self._ifindexes) - 1)
        return self._planes[at], self._ifindexes[at] == ifindex

    @classmethod
    def resolve(cls, ports: tuple[Port, ...], host: str) -> PlaneMap:
        """Look interface names up in the current namespace."""
        planes = {}
        for port in ports:
            try:
                planes[port.ifindex or socket.if_nametoindex(port.name)] = port.plane
            except OSError as error:
                names = ", ".join(name for _, name in socket.if_nameindex())
                raise InfrastructureError(
                    "a port of the plan does not exist",
                    where=host,
                    found=f"interfaces {names}",
                    expected=f"{port.name} for plane {port.plane}",
                    remedy="bring the fabric up first, or correct the port's name in the plan",
                ) from error
        return cls(planes)


def to_rows(
    captured: Captured, run_id: int, planes: PlaneMap, live: memoryview[int], here: bytes = b""
) -> npt.NDArray[np.void]:
    """Arrivals of this run, in order; everything else is added to the counters. ``here``: the host's own address."""
    heads = captured.heads
    decoded = wire.decode(captured.packets, heads["captured"], heads["length"])
    plane, known = planes.of(heads["ifindex"])
    ours = decoded.valid & (decoded.run_id == run_id)
    keep = ours & known
    total, valid, mine = len(heads), int(decoded.valid.sum()), int(ours.sum())
    at_port = int(keep.sum())
    if here:
        keep &= decoded.destination == np.void(here)
    kept = int(keep.sum())
    for counter, amount in (
        (Counter.MALFORMED, total - valid),
        (Counter.FOREIGN, valid - mine),
        (Counter.OTHER_PORT, mine - at_port),
        (Counter.MISDELIVERED, at_port - kept),
        (Counter.RECEIVED, kept),
    ):
        if amount:
            live[counter] += amount
    every = kept == total
    chosen: slice | npt.NDArray[np.bool_] = slice(None) if every else keep
    rows = np.zeros(kept, ARRIVAL)
    rows["seq"] = decoded.seq[chosen]
    rows["t_ns"] = (heads["seconds"].astype(np.int64) * 1_000_000_000 + heads["nanoseconds"])[chosen]
    rows["flow"] = decoded.flow[chosen]
    rows["ev"] = decoded.ev[chosen]
    rows["plane"] = plane[chosen]
    return rows


class HostReceiver:
    """The ring of one host, and the socket that keeps its kernel from answering probes with ICMP errors."""

    def __init__(self, ring: Ring, silencer: socket.socket, planes: PlaneMap, number: int, address: str) -> None:
        self.ring = ring
        self._number = number
        self._here = socket.inet_pton(socket.AF_INET6, address) if address else b""
        self._silencer = silencer
        self.planes = planes
        self._blocks = Blocks(ring)

    def drain(self, run_id: int, samples: SampleFile) -> None:
        """Record every block that the kernel has handed over, and give the blocks back."""
        for captured in self._blocks.handed_over():
            malformed, elsewhere = samples.live[Counter.MALFORMED], samples.live[Counter.MISDELIVERED]
            rows = to_rows(captured, run_id, self.planes, samples.live, self._here)
            self.add(samples, OfHost.MALFORMED, samples.live[Counter.MALFORMED] - malformed)
            self.add(samples, OfHost.MISDELIVERED, samples.live[Counter.MISDELIVERED] - elsewhere)
            if len(rows):
                samples.append(rows)
                samples.live[Counter.LAST_T_NS] = int(rows["t_ns"][-1])

    def add(self, samples: SampleFile, column: OfHost, packets: int) -> None:
        """Count packets of this host."""
        if packets and self._number < len(samples.of_host[column]):
            samples.of_host[column][self._number] += packets


def open_hosts(plan: ReceivePlan) -> list[HostReceiver]:
    """One ring per host, each in its host's namespace, receiving from now on."""
    hosts = []
    for number, host in enumerate(plan.hosts):
        with inside(host.netns_fd, host.name):
            planes = PlaneMap.resolve(host.ports, host.name)
            silencer = open_silencer("probe agent")
            ring = open_ring(host.name, host.ring_blocks, host.block_bytes, plan.retire_ms)
            hosts.append(HostReceiver(ring, silencer, planes, number, host.address))
    return hosts


def receive(plan: ReceivePlan, hosts: list[HostReceiver], samples: SampleFile, control: Control) -> None:
    """Record arrivals until stopped, then what the rings still hold."""
    samples.state = State.RUNNING
    poller = select.epoll()
    for host in hosts:
        poller.register(host.ring.socket, select.EPOLLIN)
    read_statistics_at = 0
    until = None
    while until is None or time.monotonic_ns() < until:
        control.wait(_IDLE_NS if until is None else 1_000_000, readable=poller.fileno())
        for host in hosts:
            host.drain(plan.run_id, samples)
        now = time.monotonic_ns()
        if now >= read_statistics_at:
            _add_drops(hosts, samples)
            read_statistics_at = now + _STATISTICS_NS
        if until is None and control.stopped:
            # A half-filled block is handed over by its timer; after two periods nothing is left in it.
            until = now + (2 * plan.retire_ms + 10) * 1_000_000
    for host in hosts:
        host.drain(plan.run_id, samples)
    _add_drops(hosts, samples)


def _add_drops(hosts: list[HostReceiver], samples: SampleFile) -> None:
    for host in hosts:
        drops = host.ring.take_drops()
        samples.live[Counter.RECEIVER_DROPS] += drops
        host.add(samples, OfHost.RING_DROPS, drops)
