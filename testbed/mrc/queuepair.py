"""A queue pair of the engine: its two halves, its entropy values, its state."""

from __future__ import annotations

from dataclasses import fields

from testbed.mrc.evs import EvSet
from testbed.mrc.peers import Peer
from testbed.mrc.qp import QpAttributes, State
from testbed.mrc.requester import Requester
from testbed.mrc.requestercounters import RequesterCounters
from testbed.mrc.responder import Responder
from testbed.mrc.responder_counters import ResponderCounters
from testbed.mrc.rows import Rows, Status

_REQUESTED = tuple(each.name for each in fields(RequesterCounters))
_RESPONDED = tuple(each.name for each in fields(ResponderCounters))


class Connection:
    """What a queue pair has from the moment it is connected."""

    def __init__(self, dqp: int, evs: EvSet, requester: Requester, responder: Responder) -> None:
        self.dqp = dqp
        self.evs = evs
        self.requester = requester
        self.responder = responder

    def next_due_ns(self) -> int | None:
        """When one of its timers is due; None in error, when nothing is sent any more that it could be due for."""
        if self.requester.state is State.ERROR:
            return None
        ack, probe = self.requester.next_due_ns(), self.evs.next_due_ns()
        if ack is None or probe is None:
            return probe if ack is None else ack
        return min(ack, probe)


class QueuePair:
    """One queue pair.

    Attributes:
        index: its number in rows, for this NIC alone; never used again.
        peer: at the other end.
        psn: PSN of the first packet it sends.
        attributes: for the other end.
        state: INIT, RTS once connected, ERROR.
        connection: None before it is connected.
        in_ring: whether it waits for its turn to send.
        answering: whether its responder may have something to send. came_by: the EV of the last WRITE
            that it answers. probed: EVs of the reliability probes that it answers.
    """

    def __init__(self, index: int, peer: Peer, attributes: QpAttributes) -> None:
        self.index = index
        self.peer = peer
        self.attributes = attributes
        self.state = State.INIT
        self.connection: Connection | None = None
        self.in_ring = False
        self.answering = False
        self.came_by: int | None = None
        self.probed: set[int] = set()

    def fail(self, status: Status, now_ns: int) -> None:
        """State ERROR: what is outstanding ends."""
        self.state = State.ERROR
        if self.connection is not None:
            self.connection.requester.fail(status, now_ns)

    def take_completions(self) -> Rows | None:
        """COMPLETION rows, if there are any; and notices where the requester has failed."""
        if self.connection is None:
            return None
        requester = self.connection.requester
        if requester.state is State.ERROR:
            self.state = State.ERROR
        rows = requester.take_completions()
        return rows if len(rows) else None

    def counters(self) -> dict[str, int]:
        """Counts of both halves, by name."""
        if self.connection is None:
            return {}
        counts = _numbers(_REQUESTED, self.connection.requester.counters)
        add(counts, _numbers(_RESPONDED, self.connection.responder.counters))
        return counts


def _numbers(names: tuple[str, ...], counters: RequesterCounters | ResponderCounters) -> dict[str, int]:
    # dataclasses.asdict copies every value as if it could hold others, which takes ten times as long.
    return {name: getattr(counters, name) for name in names}


def add(total: dict[str, int], more: dict[str, int]) -> None:
    """Add counts by name."""
    for name, count in more.items():
        total[name] = total.get(name, 0) + int(count)
