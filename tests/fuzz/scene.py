"""Two NICs with a transfer under way in both directions, and somebody who sends them hostile packets.

After every hostile packet, and at the end, it is checked that

* nothing was raised;
* not one byte outside the region was written: before it, behind it, in a region without permission, in a closed one;
* each packet given is counted, as one of a kind or as dropped for a reason;
* a requester believes that a packet has arrived, or a message is complete, only where a packet of its peer says so;
* a queue pair is in error only where a packet of its peer gave reason to;
* every work request ends; and with success, memory exact to the byte, unless the peer itself lied: whoever has the
  peer's address and makes a right ICRC can say that something has arrived that has not, and nobody can tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from testbed.mrc import psn as psns
from testbed.mrc.codes import NackReason, Syndrome
from testbed.mrc.engine import Engine
from testbed.mrc.memory import Access, Memory, MemoryRegion
from testbed.mrc.qp import State
from testbed.mrc.queuepair import Connection
from testbed.mrc.rows import Rows, Status
from testbed.mrc.sendwindow import ARRIVED
from testbed.mrc.settings import EvSettings
from testbed.mrc.wire.layout import BTH_AT
from tests.fuzz import packets as wire
from tests.unit.mrc.simnet import MS, PMTU, POLL_NS, RING, SETTINGS, Host, Network, address, packed

EVS, PLANES = 8, 4
GUARD = 4096
ROOM = 1 << 15
_FILL = 0xA5
_SCENE_SETTINGS = replace(SETTINGS, mpr=1, sack_packets=16, evs=EvSettings(active=8))
_FINISH_NS = 60_000 * MS
_LOGGED = 64


class Part(NamedTuple):
    """One packet of an honest message."""

    message: int
    opcode: int
    rqmsn: int
    va: int
    rkey: int
    dma_length: int
    imm: int
    payload: bytes


_CODECS: dict[int, Host] = {}


class _Tapped(Network):
    """Keeps the last packets put on the way to each host."""

    def __init__(self, seed: int) -> None:
        self.seen: list[deque[bytes]] = [deque(maxlen=_LOGGED), deque(maxlen=_LOGGED)]
        super().__init__(evs=EVS, planes=PLANES, settings=_SCENE_SETTINGS, seed=seed)

    def _host(self, number: int, hosts: int, seed: int) -> Host:
        # To make a codec takes ten times as long as all else; it keeps nothing from one scene to the next.
        made = _CODECS.get(number)
        if made is None:
            made = _CODECS[number] = super()._host(number, hosts, 0)
        memory = Memory()
        sink = memory.register(np.zeros(ROOM, "u1"), Access.LOCAL_WRITE | Access.REMOTE_WRITE)
        engine = Engine(self.settings, address(number), memory, seed=seed + number)
        engine.add_peer(f"h{1 - number}", address(1 - number), self.evs, self.planes, 0)
        coded = made.source, made.peers, made.writes, made.controls, made.decoder, made.ring
        return Host(number, engine, memory, sink, *coded)

    def _put(self, source: int, to: int, ev: int, kind: str, packet: bytes) -> None:
        self.seen[to].append(packet)
        super()._put(source, to, ev, kind, packet)


class Scene:
    """Hosts 0 and 1, one queue pair, and what was honestly sent; ``tainted`` once the peer is known to have lied."""

    def __init__(self, *, psn: int = 0xFFFFF0, seed: int = 1) -> None:
        self.network = _Tapped(seed)
        self.hosts = self.network.hosts
        self.psn = psn
        self.qps = self.network.connect(psn=psn)
        self.backing: list[npt.NDArray[np.uint8]] = []
        self.regions: list[MemoryRegion] = []
        self.private: list[MemoryRegion] = []
        self.images = [np.full(ROOM, _FILL, "u1"), np.full(ROOM, _FILL, "u1")]
        self.closed = [host.sink for host in self.hosts]
        for host in self.hosts:
            host.memory.deregister(host.sink)
            backing = np.full(ROOM + 2 * GUARD, _FILL, "u1")
            both = Access.LOCAL_WRITE | Access.REMOTE_WRITE
            self.regions.append(host.memory.register(backing[GUARD:-GUARD], both))
            self.private.append(host.memory.register(np.zeros(ROOM, "u1"), Access.LOCAL_WRITE))
            self.backing.append(backing)
        #: By sending host: packets and messages, in order; then what has been posted and used.
        self.parts: list[list[Part]] = [[], []]
        self.ranges: list[list[tuple[int, int]]] = [[], []]
        self.immediates = [0, 0]
        self.used = [0, 0]
        self.tainted = False
        self.given = 0
        self.kinds: dict[str, int] = {}

    # Honest traffic

    def post(self, host: int, length: int, imm: int | None = None) -> None:
        """An honest WRITE, if there is room for it."""
        other = 1 - host
        if self.used[other] + length > ROOM:
            return
        at, self.used[other] = self.used[other], self.used[other] + length
        region, source = self.regions[other], self.hosts[host].source
        data = source[at : at + length]
        number, first = len(self.ranges[host]), len(self.parts[host])
        count = max(1, -(-length // PMTU))
        for n in range(count):
            kind = "ONLY" if count == 1 else "FIRST" if not n else "LAST" if n == count - 1 else "MIDDLE"
            last = imm is not None and n == count - 1
            opcode = wire.BY_NAME[f"WRITE_{kind}{'_IMM' if last else ''}"]
            payload = data[n * PMTU : (n + 1) * PMTU].tobytes()
            self.parts[host].append(
                Part(
                    number,
                    opcode,
                    self.immediates[host],
                    region.va + at + n * PMTU,
                    region.rkey,
                    length,
                    imm or 0 if last else 0,
                    payload,
                )
            )
        self.immediates[host] += imm is not None
        self.ranges[host].append((first, first + count))
        self.images[other][at : at + length] = data
        mine = self.hosts[host]
        mine.engine.post_write(
            self.qps[host], number, mine.source.ctypes.data + at, length, region.va + at, region.rkey, imm
        )

    def run_for(self, duration_ns: int) -> None:
        """Let time pass, without any hostile packet."""
        self.network.run_for(duration_ns)
        self.check()

    # Hostile packets

    def inject(self, victim: int, packets: Sequence[bytes], planes: Sequence[int]) -> None:
        """Give hostile packets to a host, in as few calls of its decoder as its ring allows."""
        for begin in range(0, len(packets), RING):
            self._inject(victim, packets[begin : begin + RING], planes[begin : begin + RING])
        self.network.step(self.network.now_ns + POLL_NS)
        self.check()

    def _inject(self, victim: int, packets: Sequence[bytes], planes: Sequence[int]) -> None:
        host, peer = self.hosts[victim], 1 - victim
        source, destination = packed(peer), packed(victim)
        qpn = self.qps[victim].attributes.qpn
        passing = [packet for packet in packets if wire.passes(packet, source, destination, qpn)]
        believed, done = self.believed(victim), self.done(victim)
        claimed, claimed_messages = self._claims(victim, passing)
        width = host.ring.shape[1]
        for frame, packet in zip(host.ring, packets, strict=False):
            frame[: min(width, len(packet))] = np.frombuffer(packet[:width], "u1")
        received = host.decoder.decode(
            0,
            len(packets),
            np.array([min(width, len(packet)) for packet in packets]),
            np.array([len(packet) for packet in packets]),
            np.full(len(packets), self.network.now_ns),
            np.array(planes, "u1"),
        )
        kinds = {
            kind: len(getattr(received, kind)) for kind in ("writes", "sacks", "nacks", "acks", "probes", "endpoints")
        }
        dropped = {f"dropped {reason}": count for reason, count in received.dropped.items()}
        assert sum(kinds.values()) + sum(dropped.values()) == len(packets), (kinds, dropped)
        assert all(count > 0 for count in dropped.values())
        self.given += len(packets)
        for name, count in (kinds | dropped).items():
            self.kinds[name] = self.kinds.get(name, 0) + count

        def place(rows: Rows) -> None:
            assert host.memory.place(rows, host.ring).all()
            self.tainted |= not all(self._genuine(victim, host, row) for row in rows)

        def on_messages(messages: Rows) -> None:
            for qp, number, immediate in messages[["qp", "number", "has_imm"]].tolist():
                seen = host.messages.setdefault(qp, [])
                assert not immediate or set(range(number)) <= set(seen), "a WRITE_IMM before a WRITE before it"
                seen.append(number)

        was = self.qps[victim].state
        refused = self.connection(victim).responder.error
        host.engine.receive(received, place, self.network.now_ns, on_messages)
        self.check_memory(victim)
        new = self.believed(victim) - believed
        assert new <= claimed, f"packets {sorted(new - claimed)} are believed to have arrived, and nobody said so"
        messages = self.done(victim) - done
        if self.qps[victim].state is State.RTS:
            assert messages <= claimed_messages, f"messages {sorted(messages - claimed_messages)} ended unasked"
            told = set(self.hosts[peer].messages.get(self.qps[peer].index, ()))
            self.tainted |= not new <= self.arrived(peer) or not messages <= told
        error = self.connection(victim).responder.error
        if error is not None and refused is None:
            assert any(packet[BTH_AT] in wire.WRITES for packet in passing), error
            self.tainted = True
        if was is State.RTS and self.qps[victim].state is State.ERROR and error is None:
            assert any(self._fatal(packet) for packet in passing), "a queue pair failed without a reason"
            self.tainted = True

    def _genuine(self, victim: int, host: Host, row: np.void) -> bool:
        """Whether what a row placed is what the peer would have sent with this PSN."""
        parts = self.parts[1 - victim]
        at = psns.distance(int(row["psn"]), self.psn)
        if not 0 <= at < len(parts):
            return False
        part = parts[at]
        length, begin = int(row["length"]), int(row["at"])
        return part == Part(
            part.message if (part.message & 0xFFFF) == int(row["msn"]) else -1,
            int(row["opcode"]),
            int(row["rqmsn"]),
            int(row["va"]),
            int(row["rkey"]),
            int(row["dma_length"]),
            int(row["imm"]),
            host.ring[int(row["frame"]), begin : begin + length].tobytes(),
        )

    @staticmethod
    def _fatal(packet: bytes) -> bool:
        if packet[BTH_AT] == wire.BY_NAME["NACK"]:
            return wire.get(packet, "NETH.reason") == NackReason.UNEXP_EVENT
        return packet[BTH_AT] == wire.BY_NAME["ACK"] and wire.get(packet, "AETH.syndrome") != Syndrome.ACK

    def _claims(self, host: int, passing: Sequence[bytes]) -> tuple[set[int], set[int]]:
        """The packets and messages, by number from 0, that SACKs and ACKs to a host say have arrived."""
        window, queue = self.connection(host).requester._window, self.connection(host).requester._queue
        sent = window.next - self.psn
        arrived: set[int] = set()
        messages: set[int] = set()
        for packet in passing:
            if packet[BTH_AT] == wire.BY_NAME["SACK"]:
                cack = psns.unwrap(wire.get(packet, "SETH.cack_psn"), window.una) - self.psn
                if cack < sent:
                    base = cack + wire.signed(wire.get(packet, "SETH.sack_offset"), 16)
                    bitmap = wire.get(packet, "SETH.sack_bitmap")
                    arrived.update(range(cack + 1))
                    arrived.update(base + bit for bit in range(64) if bitmap >> bit & 1 and 0 <= base + bit < sent)
            elif packet[BTH_AT] == wire.BY_NAME["ACK"] and wire.get(packet, "AETH.syndrome") == Syndrome.ACK:
                number = psns.unwrap(wire.get(packet, "AETH.msn"), queue.done)
                if wire.get(packet, "BTH.r"):
                    messages.add(number)
                elif number <= queue.posted:
                    messages.update(range(number))
        for number in messages:
            if 0 <= number < len(self.ranges[host]):
                arrived.update(range(*self.ranges[host][number]))
        return arrived, messages

    # What the NICs think, by private parts, packets numbered from 0

    def connection(self, host: int) -> Connection:
        found = self.qps[host].connection
        assert found is not None
        return found

    def believed(self, host: int) -> set[int]:
        """Packets that a requester believes to have arrived."""
        window = self.connection(host).requester._window
        if self.qps[host].state is State.ERROR:
            return set()
        slots = window.slots(window.una, window.next)
        above = np.flatnonzero(window.state[slots] == ARRIVED) + window.una - self.psn
        return {*range(window.una - self.psn), *above.tolist()}

    def arrived(self, host: int) -> set[int]:
        """Packets that a responder has."""
        window = self.connection(host).responder._window
        above = np.arange(window.cack + 1, window.cack + window.size + 1)
        return {*range(window.cack + 1 - self.psn), *(above[window.arrived(above)] - self.psn).tolist()}

    def done(self, host: int) -> set[int]:
        """Messages that have ended at a requester."""
        queue = self.connection(host).requester._queue
        return {number for number in range(queue.posted) if not queue.is_open(number)}

    # What must hold

    def check_memory(self, host: int) -> None:
        backing = self.backing[host]
        assert (backing[:GUARD] == _FILL).all(), "written before the region"
        assert (backing[-GUARD:] == _FILL).all(), "written behind the region"
        assert not self.private[host].data.any(), "written where there is no permission"
        assert not self.closed[host].data.any(), "written where the region is closed"

    def check(self) -> None:
        """What holds at any time."""
        self.network.check()
        for host in (0, 1):
            self.check_memory(host)
            destination = self.qps[host].peer.destination
            assert _SCENE_SETTINGS.nscc.min_cwnd <= destination.window() <= _SCENE_SETTINGS.nscc.max_cwnd
            if not self.tainted:
                assert self.believed(host) <= self.arrived(1 - host)
                assert self.qps[host].state is State.RTS, self.network.state()

    def finish(self) -> None:
        """Leave them alone: every work request ends, and ends well unless there was a lie."""
        network = self.network
        network.heal()
        for host in (0, 1):
            self.post(host, 3 * PMTU + 1, imm=host)
        network.run(network.quiet, _FINISH_NS)
        network.step(network.now_ns + POLL_NS)  # what ended last is told
        self.check()
        for host, mine in enumerate(self.hosts):
            ended = [wr_id for wr_id, _, _, _ in mine.completions]
            assert sorted(ended) == list(range(len(self.ranges[host]))), "each work request ends once"
            failed = [status for _, status, _, _ in mine.completions if status != Status.SUCCESS]
            if failed:
                assert self.qps[host].state is State.ERROR
            if not self.tainted:
                assert not failed
                assert np.array_equal(self.regions[host].data, self.images[host])

    # Packets of the kind that the peer would send now

    def plausible(self, opcode: int, victim: int, ev: int = 0, ahead: int = 0) -> bytearray:
        """What the peer of a host might send it at this moment, lengths and ICRC still open.

        Args:
            opcode: what kind of packet; of an unknown one there is nothing but a BTH.
            victim: the host it is for.
            ev: which of the paths.
            ahead: of WRITEs: which packet, counted from the first that has not arrived; of SACKs and NACKs: likewise.
        """
        mine = self.connection(victim)
        window, queue, responder = mine.requester._window, mine.requester._queue, mine.responder
        number = responder.cack + 1 + ahead - self.psn
        parts = self.parts[1 - victim]
        part = parts[number] if 0 <= number < len(parts) else None
        payload = b""
        if opcode in wire.WRITES:
            payload = part.payload if part is not None else bytes(range(256))[:PMTU]
        packet = wire.bare(opcode, packed(1 - victim), packed(victim), int(self.network.evs[ev % EVS]), payload)
        una = window.una + ahead
        slot = una & window.mask
        sent_ev = int(self.network.evs[int(window.ev[slot])])
        stamp = int(window.stamp[slot])
        region = self.regions[victim]
        number_of_message, rqmsn, va, dma, imm = responder.completed, 0, region.va, len(payload), 0
        if part is not None:
            number_of_message, rqmsn, va, dma, imm = part.message, part.rqmsn, part.va, part.dma_length, part.imm
        peer = self.connection(1 - victim).responder
        asked = next(iter(self.hosts[victim].engine._endpoints._asked.items()), None)
        values = {
            "BTH.dqp": self.qps[victim].attributes.qpn,
            "BTH.psn": una if opcode not in wire.WRITES else number + self.psn,
            "METH.msn": number_of_message,
            "METH.rqmsn": rqmsn,
            "TSETH.tx_timestamp": self.network.now_ns // _SCENE_SETTINGS.stamp_ns,
            "TSETH.ftype": 1,
            "RETH.va": va,
            "RETH.rkey": region.rkey,
            "RETH.dma_length": dma,
            "ImmDt.immediate": imm,
            "AETH.syndrome": Syndrome.ACK,
            "AETH.msn": queue.done + ahead,
            "SETH.ack_psn_offset": 1,
            "SETH.entropy": sent_ev,
            "SETH.cack_psn": una - 1,
            "SETH.cc_type": 1,
            "SETH.mpr": _SCENE_SETTINGS.mpr,
            "SETH.sack_offset": 1,
            "CC_STATE.tx_timestamp": stamp,
            "CC_STATE.rcvd_bytes": peer.counters.mrc_bytes_placed >> 8,
            "NETH.cc_type": 2,
            "NETH.reason": NackReason.TRIMMED,
            "NETH.entropy": sent_ev,
            "NETH.nack_psn": una,
            "NETH.tx_timestamp": stamp,
            "PETH.tx_timestamp": stamp,
            "ERTH.op": ahead,
            "ERTH.tx_timestamp": stamp,
            "EETH.op": 1,
            "EETH.tx_timestamp": asked[1].stamp if asked else stamp,
        }
        if opcode == wire.BY_NAME["ENDPOINT_RESPONSE"] and asked:
            values["BTH.psn"] = asked[0]
        there = wire.layout(opcode).fields
        for name, value in values.items():
            if name in there:
                wire.put(packet, name, value)
        return packet

    def sealed(self, packet: bytearray) -> bytes:
        """With lengths and ICRC made right."""
        wire.with_lengths(packet)
        wire.with_icrc(packet)
        return bytes(packet)
