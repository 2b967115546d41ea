"""All queue pairs of a NIC, sans IO: rows in, rows out, time as argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError, nearest
from testbed.mrc.connecting import check_fit, connected
from testbed.mrc.dispatch import Received, by_qp
from testbed.mrc.endpoints import Endpoints
from testbed.mrc.memory import Memory
from testbed.mrc.nscc import BackPressure
from testbed.mrc.outgoing import Outbox, Outgoing, joined
from testbed.mrc.peers import Peer, along, planes_of
from testbed.mrc.psn import MASK
from testbed.mrc.qp import QpAttributes, Region, State
from testbed.mrc.queuepair import Connection, QueuePair, add
from testbed.mrc.rounds import Rounds
from testbed.mrc.rows import COMPLETION, EV_EVENT, EvCause, Rows, Status
from testbed.mrc.settings import Settings
from testbed.mrc.timers import Timers

#: Numbers of queue pairs begin here; 0 and 1 are IBTA's management queue pairs.
_FIRST_QPN = 0x10
Place = Callable[[Rows], None]
Messages = Callable[[Rows], None]


class Engine:
    """The NIC behind its sockets.

    Call :meth:`receive` with what has come, then :meth:`transmit`, and again at :meth:`next_due_ns` at the latest.
    Times are nanoseconds of one monotonic clock.

    Args:
        settings: the NIC's.
        address: its (inner) IPv6 address.
        memory: its registered regions.
        seed: of all that is random: initial PSNs, the order of EVs.
    """

    def __init__(self, settings: Settings, address: str, memory: Memory, *, seed: int) -> None:
        self._settings = settings
        self._address = address
        self._memory = memory
        self._seed = seed
        self._rng = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF])
        self._peers: dict[str, Peer] = {}
        self._numbered = 0
        self._qps: dict[int, QueuePair] = {}
        self._created = 0
        self._rounds = Rounds()
        self._endpoints = Endpoints(settings)
        self._outbox = Outbox()
        self._timers = Timers(settings, self._qps, self._peers, self._endpoints, self._outbox)
        self._answering: list[QueuePair] = []
        self._completions: list[Rows] = []
        self._events: list[Rows] = []
        self._pressure = BackPressure()
        self._penalty = 0
        self._denied: set[int] = set()
        self._totals: dict[str, int] = {"mrc_unknown_qp": 0, "mrc_refused_in_error": 0}

    # Peers and queue pairs

    def add_peer(
        self,
        name: str,
        address: str,
        evs: npt.NDArray[np.uint32],
        planes: npt.NDArray[np.uint8],
        first_path: int,
        now_ns: int = 0,
    ) -> Peer:
        """Get to know another NIC.

        Args:
            name: in errors and statistics.
            address: its (inner) IPv6 address.
            evs: u4 (n,), EVs of the paths to it. planes: u1 (n,), their planes.
            first_path: row of the path table of the first EV; the others follow.
            now_ns: now.

        Raises:
            UsageError: there is a peer of this name already.
        """
        if name in self._peers:
            raise UsageError("a peer was added twice", found=name, remedy="remove it first, or give it another name")
        peer = Peer(name, address, evs, planes, first_path, self._settings, seed=self._seed, number=self._numbered)
        self._numbered += 1
        for plane in planes_of(self._endpoints.down):
            peer.port_changed(plane, False, EvCause.LOCAL_PORT, now_ns)
        if self._denied:
            peer.set_denied(evs, self._denied, now_ns)
        self._peers[name] = peer
        return peer

    def base_rtts_ns(self) -> dict[str, int]:
        """Peer → the shortest round trip seen, or assumed before the first was."""
        return {name: int(peer.destination.base_rtt_ns) for name, peer in self._peers.items()}

    def remove_peer(self, name: str, now_ns: int) -> None:
        """Forget a peer; its queue pairs are destroyed."""
        peer = self._peer(name)
        for qp in list(peer.qps.values()):
            self.destroy_qp(qp, now_ns)
        self._endpoints.forget_peer(peer)
        del self._peers[name]

    def create_qp(self, peer: str, *, psn: int | None = None, regions: tuple[Region, ...] = ()) -> QueuePair:
        """A new queue pair, state INIT; its ``attributes`` are for the other end.

        Args:
            peer: name of a peer.
            psn: of the first packet to send; random where it is not given.
            regions: to be told to the other end.
        """
        known = self._peer(peer)
        first = int(self._rng.integers(MASK + 1)) if psn is None else psn
        qpn = (_FIRST_QPN + self._created) & MASK
        attributes = QpAttributes(qpn, first, self._settings.mpr, self._settings.pmtu, self._address, regions)
        qp = QueuePair(self._created, known, attributes)
        self._created += 1
        self._qps[qp.index] = known.qps[qp.index] = qp
        return qp

    def connect(self, qp: QueuePair, remote: QpAttributes, now_ns: int) -> None:
        """Join a queue pair to the one of the other end; state RTS.

        Raises:
            UsageError: it is connected already, or the other end is another NIC or has another path MTU.
        """
        check_fit(qp, remote, self._settings)
        qp.connection = connected(
            qp,
            remote,
            self._settings,
            self._memory,
            seed=self._seed,
            denied=self._denied | qp.peer.denied,
            now_ns=now_ns,
        )
        qp.connection.responder.port_state = self._endpoints.down & 0xFF
        qp.connection.responder.rcv_cwnd_pen = self._penalty
        qp.state = State.RTS

    def destroy_qp(self, qp: QueuePair, now_ns: int) -> None:
        """End a queue pair: what is outstanding is flushed, and everything it had is freed."""
        if self._qps.pop(qp.index, None) is None:
            return
        qp.fail(Status.WR_FLUSH_ERR, now_ns)
        self._settle(qp)
        self._take_events(qp)
        add(self._totals, qp.counters())
        self._rounds.leave(qp)
        self._answering = [other for other in self._answering if other is not qp]
        self._endpoints.forget_qp(qp)
        del qp.peer.qps[qp.index]
        qp.connection = None

    def post_write(
        self,
        qp: QueuePair,
        wr_id: int,
        source: int,
        length: int,
        va: int,
        rkey: int,
        imm: int | None = None,
        flags: int = 0,
    ) -> None:
        """Write ``length`` bytes at address ``source`` of this process to ``va`` at the peer; with ``imm``, WRITE_IMM.

        Raises:
            UsageError: the queue pair is not connected, its send queue is full, or the message too long.
        """
        connection = qp.connection
        if connection is None:
            raise UsageError("a queue pair is connected before anything is posted", found=qp.state.name, expected="RTS")
        connection.requester.post(wr_id, source, length, va, rkey, imm, flags)
        if qp.state is State.ERROR:
            self._settle(qp)
        else:
            self._rounds.join(qp)

    # What comes in

    def receive(self, received: Received, place: Place, now_ns: int, on_messages: Messages | None = None) -> None:
        """Take what the decoder found.

        Args:
            received: rows by kind, each in order of arrival.
            place: called with the WRITE_IN rows whose payload is to be placed, before they are acknowledged.
            now_ns: now.
            on_messages: called with MESSAGE rows that are complete, before they are acknowledged.
        """
        self._on_writes(received.writes, place, now_ns, on_messages)
        # A packet that was trimmed is missing in SACKs too: the NACK that says why comes first.
        for qp, connection, rows in self._sorted(received.nacks, now_ns):
            connection.requester.on_nacks(rows, now_ns)
            self._after(qp, connection)
        for qp, connection, rows in self._sorted(received.sacks, now_ns):
            connection.requester.on_sacks(rows, now_ns)
            ports = connection.requester.port_state
            if ports is not None and qp.peer.on_sack_ports(ports, now_ns):
                self._peer_changed(qp.peer, now_ns)
            self._after(qp, connection)
        for qp, connection, rows in self._sorted(received.acks, now_ns):
            connection.requester.on_acks(rows, now_ns)
            self._after(qp, connection)
        for qp, connection, rows in self._sorted(received.probes, now_ns):
            if qp.state is not State.ERROR or connection.responder.error is not None:
                connection.responder.on_probe(rows)
                qp.probed.update(rows["ev"].tolist())
                self._answer(qp)
        for qp, connection, rows in self._sorted(received.endpoints, now_ns):
            if self._endpoints.received(qp, connection, rows, now_ns):
                self._peer_changed(qp.peer, now_ns)
            self._after(qp, connection)

    def _on_writes(self, writes: Rows, place: Place, now_ns: int, on_messages: Messages | None) -> None:
        placed: list[Rows] = []
        touched: list[tuple[QueuePair, Connection]] = []
        for qp, connection, rows in self._sorted(writes, now_ns):
            qp.peer.inbound_ns = now_ns
            self._timers.wake_for(qp.peer, now_ns)
            if qp.state is State.ERROR and connection.responder.error is None:
                self._totals["mrc_refused_in_error"] += len(rows)
                continue
            qp.came_by = int(rows["ev"][-1])
            taken = connection.responder.accept(rows)
            placed.append(rows if taken.all() else rows[taken])
            touched.append((qp, connection))
        whole = [rows for rows in placed if len(rows)]
        if whole:
            place(whole[0] if len(whole) == 1 else np.concatenate(whole))
        for qp, connection in touched:
            messages = connection.responder.finish(now_ns)
            if len(messages):
                if on_messages is not None:
                    on_messages(messages)
                self._immediates(messages, now_ns)
            if connection.responder.error is not None and qp.state is not State.ERROR:
                qp.fail(Status.WR_FLUSH_ERR, now_ns)
                self._settle(qp)
            self._answer(qp)

    def _immediates(self, messages: Rows, now_ns: int) -> None:
        immediate = messages[messages["has_imm"] != 0]
        if len(immediate):
            rows = np.zeros(len(immediate), COMPLETION)
            rows["t_ns"] = now_ns
            rows["kind"] = 1
            for name in ("qp", "imm", "bytes"):
                rows[name] = immediate[name]
            self._completions.append(rows)

    def _sorted(self, rows: Rows, now_ns: int) -> Iterator[tuple[QueuePair, Connection, Rows]]:
        """The rows of each connected queue pair; those of others are counted and dropped."""
        for index, part in by_qp(rows):
            qp = self._qps.get(index)
            if qp is None or qp.connection is None:
                self._totals["mrc_unknown_qp"] += len(part)
            else:
                qp.peer.heard_ns = now_ns
                yield qp, qp.connection, part

    def _answer(self, qp: QueuePair) -> None:
        if not qp.answering:
            qp.answering = True
            self._answering.append(qp)

    def pressure(self, fill: float) -> None:
        """So full, 0 to 1, is what packets are received into; the penalty of the SACKs sent from now on."""
        penalty = self._pressure.penalty(fill)
        if penalty != self._penalty:
            self._penalty = penalty
            for qp in self._qps.values():
                if qp.connection is not None:
                    qp.connection.responder.rcv_cwnd_pen = penalty

    # What goes out

    def transmit(self, now_ns: int, most: int) -> Outgoing:
        """What is to be sent now: at most ``most`` WRITEs, and all control packets that are due."""
        if self._timers.due(now_ns):
            for qp, connection in self._timers.run(now_ns):
                self._after(qp, connection)
        outbox = self._outbox
        for qp in self._answering:
            qp.answering = False
            if qp.connection is not None:
                sacks, nacks, acks = qp.connection.responder.outbox(now_ns)
                if qp.probed:
                    paths = qp.peer.probed_paths(now_ns, qp.probed, everywhere=True)
                    qp.probed.clear()
                else:
                    paths = qp.peer.reply_paths(now_ns, qp.came_by)
                for rows, parts in ((nacks, outbox.nacks), (sacks, outbox.sacks), (acks, outbox.acks)):
                    if len(rows):
                        parts.append(along(paths, rows))
        self._answering.clear()
        for qp, rows in self._rounds.emit(now_ns, most):
            rows["path"] += qp.peer.first_path
            qp.peer.outbound_ns = now_ns
            outbox.writes.append(rows)
            if qp.connection is not None:
                self._timers.wake_at(qp.connection.next_due_ns())
        outbox.endpoints += self._endpoints.out
        self._endpoints.out.clear()
        return outbox.take()

    # Time and ports

    def next_due_ns(self) -> int | None:
        """When :meth:`transmit` is to be called next, if nothing comes before; None where nothing is waited for."""
        return self._timers.next_due_ns

    def port_changed(self, plane: int, up: bool, now_ns: int, announced: Callable[[], None] = lambda: None) -> None:
        """The carrier of our port of this plane changed.

        ``announced`` is called when :meth:`transmit` has what tells the peers, before the queue pairs are remapped:
        the more there are the longer that takes, and so long peers go on sending to a port that is down.
        """
        bit = 1 << plane
        down = self._endpoints.down & ~bit if up else self._endpoints.down | bit
        if down == self._endpoints.down:
            return
        self._endpoints.down = down
        for qp in self._qps.values():
            if qp.connection is not None:
                qp.connection.responder.port_state = down & 0xFF
        for peer in self._peers.values():
            peer.note_port(plane, up, EvCause.LOCAL_PORT, now_ns)
            self._endpoints.announce(peer, now_ns)
        announced()
        for peer in self._peers.values():
            peer.remap(plane, up, EvCause.LOCAL_PORT, now_ns)
            self._peer_changed(peer, now_ns)

    def deny(self, evs: npt.NDArray[np.uint32], denied: bool, now_ns: int, peer: str | None = None) -> None:
        """The controller forbids EVs, or allows them again: to all queue pairs and replies, those to come too.

        ``peer``: towards this one only. What is denied towards all stays so until it is allowed towards all, and what
        is denied towards one until it is allowed towards that one. Raises UsageError where nobody has this name.
        """
        values = set(evs.tolist())
        if peer is not None:
            known = self._peer(peer)
            known.denied = known.denied | values if denied else known.denied - values
            known.set_denied(evs, self._denied, now_ns)
            return
        self._denied = self._denied | values if denied else self._denied - values
        for known in self._peers.values():
            known.set_denied(evs, self._denied, now_ns)

    def _peer_changed(self, peer: Peer, now_ns: int) -> None:
        self._timers.wake_for(peer, now_ns)
        for qp in peer.qps.values():
            if qp.connection is not None:
                self._after(qp, qp.connection)

    def _after(self, qp: QueuePair, connection: Connection) -> None:
        """Something happened to a queue pair's requester."""
        self._settle(qp)
        self._rounds.join(qp)
        self._timers.wake_at(connection.next_due_ns())

    def _settle(self, qp: QueuePair) -> None:
        rows = qp.take_completions()
        if rows is not None:
            self._completions.append(rows)

    # What is told

    def completions(self) -> Rows:
        """COMPLETION rows since the last call."""
        rows = joined(self._completions, COMPLETION)
        self._completions.clear()
        return rows

    def ev_events(self) -> Rows:
        """EV_EVENT rows since the last call."""
        for qp in self._qps.values():
            self._take_events(qp)
        rows = joined(self._events, EV_EVENT)
        self._events.clear()
        return rows

    def counters(self) -> dict[str, int]:
        """Counts of all queue pairs, those destroyed included, by name."""
        total = dict(self._totals)
        add(total, self._endpoints.counters)
        for qp in self._qps.values():
            add(total, qp.counters())
        return total

    def _take_events(self, qp: QueuePair) -> None:
        if qp.connection is not None:
            rows = qp.connection.evs.take_events()
            if len(rows):
                self._events.append(rows)

    def _peer(self, name: str) -> Peer:
        known = self._peers.get(name)
        if known is None:
            raise UsageError(
                "there is no peer of this name",
                found=name,
                expected=", ".join(sorted(self._peers)) or "a peer, but none was added",
                nearest=nearest(name, self._peers),
                remedy="add the peer first",
            )
        return known
