"""A network of planes in virtual time between real engines: drops, duplicates, delays, trims, marks, cuts."""

from __future__ import annotations

import heapq
import ipaddress
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import numpy.typing as npt

from testbed.mrc.engine import Engine
from testbed.mrc.memory import Access, Memory, MemoryRegion
from testbed.mrc.outgoing import Outgoing
from testbed.mrc.qp import State
from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import Ecn, Rows, Status
from testbed.mrc.settings import EvSettings, NsccSettings, Settings
from testbed.mrc.wire.codec import ControlEncoder, Decoder, PathTable, Payloads, WriteEncoder
from testbed.mrc.wire.table import load

MS = 1_000_000
#: A NIC looks at its sockets this often: what came in between is one batch.
POLL_NS = 50_000
#: Packets taken in one look.
RING = 256
#: A switch leaves so much of a packet: more than its headers.
TRIMMED_BYTES = 140
TABLE = load()
PMTU = 256
#: Small packets, so that many fit in little time; a window of 512 PSNs, so that it fills.
SETTINGS = Settings(
    pmtu=PMTU,
    mpr=4,
    evs=EvSettings(active=16),
    nscc=NsccSettings(max_cwnd=1 << 15, initial_cwnd=1 << 15, min_cwnd=PMTU, unloaded_rtt_ns=6 * MS),
)
REGION = 1 << 18


@dataclass
class Path:
    """What a path, in one direction, does to packets: chances, and delay."""

    drop: float = 0.0
    mark: float = 0.0
    trim: float = 0.0
    duplicate: float = 0.0
    delay_ns: int = 3 * MS
    jitter_ns: int = 0


@dataclass
class Host:
    """A NIC with its memory; and what its application saw."""

    number: int
    engine: Engine
    memory: Memory
    sink: MemoryRegion
    source: npt.NDArray[np.uint8]
    peers: list[int]
    writes: WriteEncoder
    controls: ControlEncoder
    decoder: Decoder
    ring: npt.NDArray[np.uint8]
    completions: list[tuple[int, int, int, int]] = field(default_factory=list)  # wr_id, status, qp, t_ns
    immediates: list[tuple[int, int]] = field(default_factory=list)  # qp, imm
    messages: dict[int, list[int]] = field(default_factory=dict)  # numbers by qp
    qps: list[QueuePair] = field(default_factory=list)  # by index

    def queue_pairs(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
        """For encoder and decoder: their numbers, and their peers' addresses; nobody's for those that are destroyed."""
        live = [qp.connection is not None for qp in self.qps]
        numbers = [qp.attributes.qpn if up else (1 << 24) + qp.index for qp, up in zip(self.qps, live, strict=True)]
        addresses = [packed(int(qp.peer.name[1:])) if up else bytes(16) for qp, up in zip(self.qps, live, strict=True)]
        return np.array(numbers, "u4"), np.frombuffer(b"".join(addresses), "u1").reshape(-1, 16)


class Network:
    """Hosts joined by ``evs`` paths in every direction; EV number e runs over plane e % planes.

    Attributes:
        paths: by (source, destination, EV index).
        cut: (host, plane) whose cable is out, both ways: packets vanish.
        swallowed: kinds of packets that vanish everywhere.
        carried: packets put on each path, by kind.
        trimmed: WRITEs that were cut on their way.
    """

    def __init__(
        self, hosts: int = 2, evs: int = 16, planes: int = 4, settings: Settings = SETTINGS, seed: int = 1
    ) -> None:
        self.now_ns = 1_000 * MS
        self.settings = settings
        self.planes = (np.arange(evs) % planes).astype("u1")
        self.evs = np.arange(0x10000, 0x10000 + evs).astype("u4")
        self.paths = {(a, b, e): Path() for a in range(hosts) for b in range(hosts) if a != b for e in range(evs)}
        self.cut: set[tuple[int, int]] = set()
        self.swallowed: set[str] = set()
        self.carried: dict[tuple[int, int, int, str], int] = {}
        self.placed = 0
        self.trimmed = 0
        self._random = random.Random(seed)
        self._air: list[list[tuple[int, int, int, int, bytes]]] = [[] for _ in range(hosts)]
        self._order = count()
        self.hosts = [self._host(number, hosts, seed) for number in range(hosts)]

    def _host(self, number: int, hosts: int, seed: int) -> Host:
        memory = Memory()
        sink = memory.register(np.zeros(REGION, "u1"), Access.LOCAL_WRITE | Access.REMOTE_WRITE)
        source = np.random.default_rng([seed, number]).integers(1, 256, REGION, "u1")
        engine = Engine(self.settings, address(number), memory, seed=seed + number)
        peers = [other for other in range(hosts) if other != number]
        paths = self._path_table(number, peers)
        payloads = Payloads()
        payloads.register(source)
        ring = np.zeros((RING, 512), "u1")
        for place, other in enumerate(peers):
            engine.add_peer(f"h{other}", address(other), self.evs, self.planes, place * len(self.evs))
        return Host(
            number,
            engine,
            memory,
            sink,
            source,
            peers,
            WriteEncoder(TABLE, paths, payloads, 64, PMTU),
            ControlEncoder(TABLE, paths, 1024),
            Decoder(TABLE, ring, 0, packed(number), PMTU, RING),
            ring,
        )

    def _path_table(self, number: int, peers: list[int]) -> PathTable:
        count = len(peers) * len(self.evs)
        here = np.tile(np.frombuffer(packed(number), "u1"), (count, 1))
        there = np.repeat(np.array([np.frombuffer(packed(peer), "u1") for peer in peers]), len(self.evs), axis=0)
        return PathTable(here, there, here, there, np.tile(self.evs, len(peers)), np.tile(self.planes, len(peers)))

    def connect(self, a: int = 0, b: int = 1, psn: int | None = None) -> tuple[QueuePair, QueuePair]:
        """A queue pair between two hosts."""
        here, there = self.hosts[a].engine, self.hosts[b].engine
        one, other = here.create_qp(f"h{b}", psn=psn), there.create_qp(f"h{a}", psn=psn)
        self.hosts[a].qps.append(one)
        self.hosts[b].qps.append(other)
        here.connect(one, other.attributes, self.now_ns)
        there.connect(other, one.attributes, self.now_ns)
        for host in self.hosts:
            numbers, addresses = host.queue_pairs()
            host.controls.set_queue_pairs(numbers)
            host.decoder.set_queue_pairs(numbers, addresses)
        return one, other

    def post(
        self, host: int, qp: QueuePair, wr_id: int, length: int, at: int, imm: int | None = None, source: int = 0
    ) -> None:
        """Write to offset ``at`` of the peer's region."""
        mine = self.hosts[host]
        sink = self.hosts[int(qp.peer.name[1:])].sink
        assert source + length <= REGION
        mine.engine.post_write(qp, wr_id, mine.source.ctypes.data + source, length, sink.va + at, sink.rkey, imm)

    def port(self, host: int, plane: int, up: bool) -> None:
        """A cable is pulled or put back; the NIC there sees it at once."""
        (self.cut.discard if up else self.cut.add)((host, plane))
        self.hosts[host].engine.port_changed(plane, up, self.now_ns)

    def plane_dies(self, plane: int) -> None:
        """Everything of a plane vanishes, and nobody is told."""
        for (_, _, ev), path in self.paths.items():
            if self.planes[ev] == plane:
                path.drop = 1.0

    def heal(self) -> None:
        """Every path as at the beginning; cables stay as they are."""
        for key in self.paths:
            self.paths[key] = Path()

    # Time

    def run(self, until: Callable[[], bool], limit_ns: int) -> None:
        """Until a condition holds; fails where it does not within ``limit_ns`` of virtual time."""
        deadline = self.now_ns + limit_ns
        while not until():
            assert self.now_ns <= deadline, f"not within {limit_ns / MS:g} ms: {self.state()}"
            self.step(deadline + 1)

    def run_for(self, duration_ns: int) -> None:
        """For so long."""
        end = self.now_ns + duration_ns
        while self.now_ns < end:
            self.step(end)

    def step(self, end_ns: int) -> None:
        """Let every NIC look once, then go to the next moment at which something happens."""
        full = False
        for host in self.hosts:
            self._deliver(host)
            out = host.engine.transmit(self.now_ns, 64)
            due_ns = host.engine.next_due_ns()
            assert due_ns is None or due_ns > self.now_ns, f"h{host.number} turns without end: {self.state()}"
            full |= len(out.writes) == 64
            self._send(host, out)
            for row in host.engine.completions():
                if row["kind"] == 0:
                    host.completions.append((int(row["wr_id"]), int(row["status"]), int(row["qp"]), int(row["t_ns"])))
                else:
                    host.immediates.append((int(row["qp"]), int(row["imm"])))
        self.check()
        due = [at for host in self.hosts if (at := host.engine.next_due_ns()) is not None]
        due += [air[0][0] for air in self._air if air]
        due += [self.now_ns + 1000] if full else []
        self.now_ns = min(end_ns, max(self.now_ns + 1, min(due, default=end_ns)))

    def check(self) -> None:
        """What holds at any time."""
        for host in self.hosts:
            for peer in host.engine._peers.values():
                each = [qp.connection.requester.in_flight for qp in peer.qps.values() if qp.connection is not None]
                assert peer.destination.in_flight == sum(each)
                assert all(nbytes >= 0 for nbytes in each)

    def quiet(self) -> bool:
        """Whether nothing is outstanding and nothing is in flight."""
        return all(
            qp.connection is None or qp.connection.requester.outstanding == 0
            for host in self.hosts
            for qp in host.engine._qps.values()
        )

    def state(self) -> str:
        """For people."""
        return "; ".join(
            f"h{host.number} qp {qp.index} {qp.state.name}: {qp.connection.requester.outstanding} outstanding, "
            f"{qp.connection.requester.in_flight} in flight, {qp.connection.requester.counters}"
            for host in self.hosts
            for qp in host.engine._qps.values()
            if qp.connection is not None
        )

    def errors(self) -> list[QueuePair]:
        """Queue pairs in state ERROR."""
        return [qp for host in self.hosts for qp in host.engine._qps.values() if qp.state is State.ERROR]

    # The air

    def _send(self, host: Host, out: Outgoing) -> None:
        for kind, rows in (
            ("writes", out.writes),
            ("nacks", out.nacks),
            ("sacks", out.sacks),
            ("acks", out.acks),
            ("probes", out.probes),
            ("endpoints", out.endpoints),
        ):
            if len(rows):
                encoded = host.writes.encode(rows) if kind == "writes" else host.controls.encode(rows)
                for path, packet in zip(rows["path"].tolist(), encoded.packets(), strict=True):
                    place, ev = divmod(path, len(self.evs))
                    self._put(host.number, host.peers[place], ev, kind, packet)

    def _put(self, source: int, to: int, ev: int, kind: str, packet: bytes) -> None:
        key = (source, to, ev, kind)
        self.carried[key] = self.carried.get(key, 0) + 1
        path, plane = self.paths[source, to, ev], int(self.planes[ev])
        if (
            kind in self.swallowed
            or (source, plane) in self.cut
            or (to, plane) in self.cut
            or self._random.random() < path.drop
        ):
            return
        size = len(packet)
        if kind == "writes":
            if self._random.random() < path.mark:
                packet = with_class(packet, packet_class(packet) | Ecn.CE)
            if self._random.random() < path.trim:
                self.trimmed += 1
                packet = with_class(packet, TABLE.dscp["TRIMMED"] << 2 | packet_class(packet) & 3)[:TRIMMED_BYTES]
        for _ in range(1 + (self._random.random() < path.duplicate)):
            delay = path.delay_ns + (self._random.randrange(path.jitter_ns) if path.jitter_ns else 0)
            at = -(-(self.now_ns + delay) // POLL_NS) * POLL_NS
            heapq.heappush(self._air[to], (at, next(self._order), plane, size, packet))

    def _deliver(self, host: Host) -> None:
        air = self._air[host.number]
        arrived: list[tuple[int, int, int, int, bytes]] = []
        while air and air[0][0] <= self.now_ns and len(arrived) < len(host.ring):
            arrived.append(heapq.heappop(air))
        if not arrived:
            return
        for frame, (*_, packet) in zip(host.ring, arrived, strict=False):
            frame[: len(packet)] = np.frombuffer(packet, "u1")
        received = host.decoder.decode(
            0,
            len(arrived),
            np.array([len(packet) for *_, packet in arrived]),
            np.array([size if len(packet) == size else len(packet) for *_, size, packet in arrived]),
            np.full(len(arrived), self.now_ns),
            np.array([plane for _, _, plane, _, _ in arrived], "u1"),
        )
        assert set(received.dropped) <= {"unknown_qp"}, received.dropped

        def place(writes: Rows) -> None:
            assert host.memory.place(writes, host.ring).all()
            self.placed += len(writes)

        def on_messages(messages: Rows) -> None:
            for qp, number, immediate in messages[["qp", "number", "has_imm"]].tolist():
                seen = host.messages.setdefault(qp, [])
                assert not immediate or set(range(number)) <= set(seen), "a WRITE_IMM before a WRITE before it"
                seen.append(number)

        host.engine.receive(received, place, self.now_ns, on_messages)


def packet_class(packet: bytes) -> int:
    """The outer traffic class."""
    return int.from_bytes(packet[:2], "big") >> 4 & 0xFF


def with_class(packet: bytes, traffic_class: int) -> bytes:
    """The packet with another outer traffic class, as a switch would change it."""
    return (int.from_bytes(packet[:2], "big") & 0xF00F | traffic_class << 4).to_bytes(2, "big") + packet[2:]


def packed(number: int) -> bytes:
    return ipaddress.IPv6Address(address(number)).packed


def address(number: int) -> str:
    return f"fd00::{number + 1:x}"


def statuses(host: Host) -> list[Status]:
    """How the work requests of a host ended, in order."""
    return [Status(status) for _, status, _, _ in host.completions]
