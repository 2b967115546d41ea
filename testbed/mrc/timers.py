"""When a NIC has something to do without anything coming in, and doing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from testbed.mrc.endpoints import Endpoints
from testbed.mrc.outgoing import Outbox
from testbed.mrc.peers import Peer
from testbed.mrc.qp import State
from testbed.mrc.queuepair import Connection, QueuePair
from testbed.mrc.settings import Settings

_NEVER = (1 << 63) - 1


class Timers:
    """Timers of all queue pairs and peers of a NIC.

    Args:
        settings: the NIC's.
        qps, peers: the NIC's, by index and name; they change under it.
        endpoints: its probes and port status updates.
        outbox: where reliability probes go.
    """

    def __init__(
        self,
        settings: Settings,
        qps: Mapping[int, QueuePair],
        peers: Mapping[str, Peer],
        endpoints: Endpoints,
        outbox: Outbox,
    ) -> None:
        self._reverse_period_ns = settings.evs.reverse_probe_interval_ns
        self._qps = qps
        self._peers = peers
        self._endpoints = endpoints
        self._outbox = outbox
        self._due_ns = _NEVER

    @property
    def next_due_ns(self) -> int | None:
        """When :meth:`run` next has something to do; None where nothing is waited for."""
        return None if self._due_ns == _NEVER else self._due_ns

    def due(self, now_ns: int) -> bool:
        """Whether it has now."""
        return now_ns >= self._due_ns

    def wake_at(self, due_ns: int | None) -> None:
        """Something is to be done at that time."""
        if due_ns is not None and due_ns < self._due_ns:
            self._due_ns = due_ns

    def wake_for(self, peer: Peer, now_ns: int) -> None:
        """Something about a peer has changed: look when it next needs anything."""
        if peer.announcement is not None:
            self.wake_at(peer.announcement.due_ns)
        self.wake_at(peer.reverse_probe_due_ns(now_ns, self._reverse_period_ns))

    def run(self, now_ns: int) -> Iterator[tuple[QueuePair, Connection]]:
        """Do what is due; each queue pair to which something happened."""
        self._due_ns = _NEVER
        for qp in list(self._qps.values()):
            connection = qp.connection
            if connection is None:
                continue
            due = connection.next_due_ns()
            if due is None or due > now_ns:
                self.wake_at(due)
                continue
            requester = connection.requester
            requester.heard_ns = max(requester.heard_ns, qp.peer.heard_ns)
            probes = requester.on_timer(now_ns)
            if len(probes):
                probes["path"] += qp.peer.first_path
                self._outbox.probes.append(probes)
            if qp.state is not State.ERROR:
                self._endpoints.probe(qp, connection, now_ns)
            yield qp, connection
        for peer in self._peers.values():
            self._endpoints.repeat(peer, now_ns)
            if peer.receives_only(now_ns, self._reverse_period_ns):
                self._endpoints.probe_reverse(peer, now_ns)
            self.wake_for(peer, now_ns)
