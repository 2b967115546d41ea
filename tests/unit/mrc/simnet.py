"""A network of planes in virtual time between real engines: drops, duplicates, delays, trims, marks, cuts."""

from __future__ import annotations

import heapq
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
from testbed.mrc.rows import (
    ACK_IN,
    ENDPOINT_IN,
    NACK_IN,
    PROBE_IN,
    SACK_IN,
    WRITE_IN,
    Dscp,
    Ecn,
    Rows,
    Status,
)
from testbed.mrc.settings import EvSettings, NsccSettings, Settings

MS = 1_000_000
#: A NIC looks at its sockets this often: what came in between is one batch.
POLL_NS = 50_000
KINDS = {
    "writes": WRITE_IN,
    "nacks": NACK_IN,
    "sacks": SACK_IN,
    "acks": ACK_IN,
    "probes": PROBE_IN,
    "endpoints": ENDPOINT_IN,
}
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
    completions: list[tuple[int, int, int, int]] = field(default_factory=list)  # wr_id, status, qp, t_ns
    immediates: list[tuple[int, int]] = field(default_factory=list)  # qp, imm
    messages: dict[int, list[int]] = field(default_factory=dict)  # numbers by qp


@dataclass
class Received:
    """Rows as a decoder makes them."""

    writes: Rows
    sacks: Rows
    nacks: Rows
    acks: Rows
    probes: Rows
    endpoints: Rows


class Network:
    """Hosts joined by ``evs`` paths in every direction; EV number e runs over plane e % planes.

    Attributes:
        paths: by (source, destination, EV index).
        cut: (host, plane) whose cable is out, both ways: packets vanish.
        carried: packets put on each path, by kind.
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
        self.carried: dict[tuple[int, int, int, str], int] = {}
        self.placed = 0
        self._rng = np.random.default_rng(seed)
        self._air: list[tuple[int, int, int, str, Rows, bytes]] = []
        self._order = count()
        self.hosts = [self._host(number, hosts, seed) for number in range(hosts)]

    def _host(self, number: int, hosts: int, seed: int) -> Host:
        memory = Memory()
        sink = memory.register(np.zeros(REGION, "u1"), Access.LOCAL_WRITE | Access.REMOTE_WRITE)
        source = np.random.default_rng([seed, number]).integers(1, 256, REGION, "u1")
        engine = Engine(self.settings, address(number), memory, seed=seed + number)
        peers = [other for other in range(hosts) if other != number]
        for place, other in enumerate(peers):
            engine.add_peer(f"h{other}", address(other), self.evs, self.planes, place * len(self.evs))
        return Host(number, engine, memory, sink, source, peers)

    def connect(self, a: int = 0, b: int = 1, psn: int | None = None) -> tuple[QueuePair, QueuePair]:
        """A queue pair between two hosts."""
        here, there = self.hosts[a].engine, self.hosts[b].engine
        one, other = here.create_qp(f"h{b}", psn=psn), there.create_qp(f"h{a}", psn=psn)
        here.connect(one, other.attributes, self.now_ns)
        there.connect(other, one.attributes, self.now_ns)
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
            full |= len(out.writes) == 64
            self._send(host, out)
            for row in host.engine.completions():
                if row["kind"] == 0:
                    host.completions.append((int(row["wr_id"]), int(row["status"]), int(row["qp"]), int(row["t_ns"])))
                else:
                    host.immediates.append((int(row["qp"]), int(row["imm"])))
        self.check()
        due = [at for host in self.hosts if (at := host.engine.next_due_ns()) is not None]
        due += [self._air[0][0]] if self._air else []
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
        for kind, dtype in KINDS.items():
            rows: Rows = getattr(out, kind)
            if not len(rows):
                continue
            received = np.zeros(len(rows), dtype)
            for name in set(rows.dtype.names or ()) & set(dtype.names or ()) - {"qp"}:
                received[name] = rows[name]
            received["ecn"] = Ecn.ECT_0 if kind == "writes" else Ecn.NOT_ECT
            for n, (path, dqp) in enumerate(zip(rows["path"].tolist(), rows["dqp"].tolist(), strict=True)):
                payload = b""
                if kind == "writes":
                    at = int(rows["source"][n]) - host.source.ctypes.data
                    payload = host.source[at : at + int(rows["length"][n])].tobytes()
                place, ev = divmod(path, len(self.evs))
                self._put(host, host.peers[place], ev, kind, received[n : n + 1], payload, dqp)

    def _put(self, host: Host, to: int, ev: int, kind: str, row: Rows, payload: bytes, dqp: int) -> None:
        key = (host.number, to, ev, kind)
        self.carried[key] = self.carried.get(key, 0) + 1
        path, plane = self.paths[host.number, to, ev], int(self.planes[ev])
        if (host.number, plane) in self.cut or (to, plane) in self.cut or self._rng.random() < path.drop:
            return
        row["ev"] = self.evs[ev]
        row["plane"] = plane
        qps = [qp for qp in self.hosts[to].engine._qps.values() if qp.attributes.qpn == dqp]
        if not qps:
            return
        row["qp"] = qps[0].index
        if kind == "writes":
            if self._rng.random() < path.mark:
                row["ecn"] = Ecn.CE
            if self._rng.random() < path.trim:
                row["dscp"], row["trimmed"], payload = Dscp.TRIMMED, 1, b""
                row["length"] = 0
        copies = 1 + int(self._rng.random() < path.duplicate)
        for _ in range(copies):
            delay = path.delay_ns + (int(self._rng.integers(path.jitter_ns)) if path.jitter_ns else 0)
            at = -(-(self.now_ns + delay) // POLL_NS) * POLL_NS
            heapq.heappush(self._air, (at, next(self._order), to, kind, row.copy(), payload))

    def _deliver(self, host: Host) -> None:
        mine: dict[str, list[Rows]] = {kind: [] for kind in KINDS}
        payloads: list[bytes] = []
        rest = []
        while self._air and self._air[0][0] <= self.now_ns:
            item = heapq.heappop(self._air)
            _, _, to, kind, row, payload = item
            if to != host.number:
                rest.append(item)
                continue
            row["t_ns"] = self.now_ns
            if kind == "writes":
                row["frame"] = len(payloads)
                payloads.append(payload)
            mine[kind].append(row)
        for item in rest:
            heapq.heappush(self._air, item)
        if not any(mine.values()):
            return
        frames = np.zeros((len(payloads), self.settings.pmtu), "u1")
        for n, payload in enumerate(payloads):
            frames[n, : len(payload)] = np.frombuffer(payload, "u1")
        rows = {kind: np.concatenate(parts) if parts else np.zeros(0, KINDS[kind]) for kind, parts in mine.items()}

        def place(writes: Rows) -> None:
            assert host.memory.place(writes, frames).all()
            self.placed += len(writes)

        def on_messages(messages: Rows) -> None:
            for qp, number, immediate in messages[["qp", "number", "has_imm"]].tolist():
                seen = host.messages.setdefault(qp, [])
                assert not immediate or set(range(number)) <= set(seen), "a WRITE_IMM before a WRITE before it"
                seen.append(number)

        host.engine.receive(Received(**rows), place, self.now_ns, on_messages)


def address(number: int) -> str:
    return f"fd00::{number + 1:x}"


def statuses(host: Host) -> list[Status]:
    """How the work requests of a host ended, in order."""
    return [Status(status) for _, status, _, _ in host.completions]
