"""Endpoint requests and responses: probes of EVs, and port status updates.

The tables' response (EETH) says neither which EV was probed nor which update is answered. Ours: every request carries
a number of its own in BTH.psn, and a time stamp; the response returns both, and counts only if both fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from testbed.mrc.peers import ANNOUNCEMENTS, Announcement, Peer, along
from testbed.mrc.psn import MASK
from testbed.mrc.queuepair import Connection, QueuePair
from testbed.mrc.rows import ENDPOINT_OUT, Dscp, Rows
from testbed.mrc.settings import Settings

REQUEST, RESPONSE = 0xD8, 0xD9
PORT_STATUS_UPDATE, EV_PROBE = 0, 1


@dataclass(frozen=True, slots=True)
class _Asked:
    """A probe under way: of an EV of a queue pair, or (``qp`` None) of a reverse EV of the peer."""

    peer: Peer
    qp: QueuePair | None
    index: int
    stamp: int
    deadline_ns: int


class Endpoints:
    """The requests of one NIC, and its answers to others'.

    Attributes:
        down: our ports that are down, a bit each.
        out: ENDPOINT_OUT rows to send.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self.down = 0
        self.out: list[Rows] = []
        self.counters = {
            "mrc_ev_probes_sent": 0,
            "mrc_ev_probes_answered": 0,
            "mrc_port_updates_sent": 0,
            "mrc_wrong_port_states": 0,
        }

    def probe(self, qp: QueuePair, connection: Connection, now_ns: int) -> None:
        """Probe the EVs of a queue pair that are due."""
        due = connection.evs.probes_due(now_ns)
        if len(due):
            self._ask(qp.peer, qp, connection.dqp, due.tolist(), now_ns, qp.index)

    def probe_reverse(self, peer: Peer, now_ns: int) -> None:
        """Probe a reverse EV, if it is time to."""
        talker = _talker(peer)
        if talker is None:
            return
        index = peer.reverse.probe_due(now_ns)
        if index is not None:
            self._ask(peer, None, talker[1].dqp, [index], now_ns, talker[0].index)

    def _ask(self, peer: Peer, qp: QueuePair | None, dqp: int, indices: list[int], now_ns: int, via: int) -> None:
        self._forget(now_ns)
        rows = self._rows(len(indices), REQUEST, EV_PROBE, via, dqp)
        stamp = self._stamp(now_ns)
        deadline_ns = now_ns + self._settings.evs.probe_timeout_ns
        for n, index in enumerate(indices):
            number = self._next_number()
            self._asked[number] = _Asked(peer, qp, index, stamp, deadline_ns)
            rows["psn"][n] = number
        rows["path"] = np.array(indices) + peer.first_path
        rows["stamp"] = stamp
        self.out.append(rows)
        self.counters["mrc_ev_probes_sent"] += len(rows)

    def announce(self, peer: Peer, now_ns: int) -> None:
        """Our ports have changed: tell a peer, from now on until it answers."""
        peer.announcement = Announcement(self._next_number(), now_ns)
        self.repeat(peer, now_ns)

    def repeat(self, peer: Peer, now_ns: int) -> None:
        """Send the port status update, if it is time to."""
        update = peer.announcement
        if update is None or now_ns < update.due_ns:
            return
        talker = _talker(peer)
        if talker is None or update.sent >= ANNOUNCEMENTS:
            peer.announcement = None
            return
        rows = self._rows(1, REQUEST, PORT_STATUS_UPDATE, talker[0].index, talker[1].dqp)
        rows["psn"] = update.number
        rows["stamp"] = self._stamp(now_ns)
        rows["port_mask"] = self.down
        rows = along(peer.reply_paths(now_ns), rows)
        self.out.append(rows)
        update.sent += 1
        update.due_ns = now_ns + self._settings.nscc.base_rtt_ns
        self.counters["mrc_port_updates_sent"] += len(rows)

    def received(self, qp: QueuePair, connection: Connection, rows: Rows, now_ns: int) -> bool:
        """ENDPOINT_IN rows of a queue pair; whether the peer's ports changed."""
        requests = rows[rows["opcode"] == REQUEST]
        changed = False
        if len(requests):
            answers = self._rows(len(requests), RESPONSE, 0, qp.index, connection.dqp)
            for name in ("op", "psn", "stamp"):
                answers[name] = requests[name]
            # Each by the way it came, too: an answer that is lost elsewhere would say that this path is bad.
            for n, ev in enumerate(requests["ev"].tolist()):
                ways = qp.peer.probed_paths(now_ns, (ev,), everywhere=False)
                self.out.append(along(ways, answers[n : n + 1]))
            updates = requests[requests["op"] == PORT_STATUS_UPDATE]
            for number, mask, plane in zip(
                updates["psn"].tolist(), updates["port_mask"].tolist(), updates["plane"].tolist(), strict=True
            ):
                if mask >> plane & 1:  # the very port by which it was sent
                    self.counters["mrc_wrong_port_states"] += 1
                else:
                    changed |= qp.peer.on_update(number, mask, now_ns)
        answers = rows[rows["opcode"] == RESPONSE]
        for op, number, stamp in zip(
            answers["op"].tolist(), answers["psn"].tolist(), answers["stamp"].tolist(), strict=True
        ):
            if op == EV_PROBE:
                self._probe_answered(qp.peer, number, stamp, now_ns)
            elif qp.peer.announcement is not None and qp.peer.announcement.number == number:
                qp.peer.announcement = None
        return changed

    def _probe_answered(self, peer: Peer, number: int, stamp: int, now_ns: int) -> None:
        asked = self._asked.get(number)
        if asked is None or asked.peer is not peer or asked.stamp != stamp:
            return
        del self._asked[number]
        self.counters["mrc_ev_probes_answered"] += 1
        if asked.qp is None:
            peer.reverse.on_probe_answer(asked.index, now_ns)
        elif asked.qp.connection is not None:
            asked.qp.connection.evs.on_probe_answer(asked.index, now_ns)
            asked.qp.connection.requester.path_back(now_ns)

    def _forget(self, now_ns: int) -> None:
        overdue = []
        for number, asked in self._asked.items():
            if asked.deadline_ns > now_ns:
                break
            overdue.append(number)
        for number in overdue:
            del self._asked[number]

    def forget_qp(self, qp: QueuePair) -> None:
        """A queue pair is gone, and its probes with it."""
        self._asked = {number: asked for number, asked in self._asked.items() if asked.qp is not qp}

    def forget_peer(self, peer: Peer) -> None:
        """A peer is gone, and all its probes with it."""
        self._asked = {number: asked for number, asked in self._asked.items() if asked.peer is not peer}

    def _rows(self, count: int, opcode: int, op: int, qp: int, dqp: int) -> Rows:
        rows = np.zeros(count, ENDPOINT_OUT)
        rows["opcode"] = opcode
        rows["op"] = op
        rows["qp"] = qp
        rows["dqp"] = dqp
        rows["dscp"] = Dscp.CONTROL
        return rows

    def _next_number(self) -> int:
        self._number = (self._number + 1) & MASK
        return self._number

    def _stamp(self, now_ns: int) -> int:
        return (now_ns // self._settings.stamp_ns) & 0xFFFF


def _talker(peer: Peer) -> tuple[QueuePair, Connection] | None:
    """A queue pair by which a peer can be talked to."""
    for qp in peer.qps.values():
        if qp.connection is not None:
            return qp, qp.connection
    return None
