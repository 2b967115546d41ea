"""The requester of a queue pair: WRITEs in, packets out, and everything that makes them arrive exactly once.

Sans IO: rows in, rows out, time as argument. What is lost is told only by evidence (see :mod:`testbed.mrc.losses`) or
by a NACK; what is done only by a transport ACK.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc import psn as psns
from testbed.mrc.codes import SackMark, Syndrome
from testbed.mrc.evs import EvSet
from testbed.mrc.losses import RoundTrips
from testbed.mrc.nackreader import NackReader
from testbed.mrc.nscc import Destination
from testbed.mrc.qp import State
from testbed.mrc.requestercounters import RequesterCounters
from testbed.mrc.rows import COMPLETION, PROBE_OUT, WRITE_OUT, Flag, Rows, Status
from testbed.mrc.sackreader import Heard, SackReader
from testbed.mrc.sender import Sender
from testbed.mrc.sendqueue import DEPTH, SendQueue
from testbed.mrc.sendwindow import IN_FLIGHT, Indices, SendWindow
from testbed.mrc.settings import Settings
from testbed.mrc.silence import Silence

_NAKS = {
    Syndrome.NAK_INVALID_REQUEST: Status.REM_INV_REQ_ERR,
    Syndrome.NAK_REMOTE_ACCESS: Status.REM_ACCESS_ERR,
    Syndrome.NAK_REMOTE_OPERATIONAL: Status.REM_OP_ERR,
}


class Requester:
    """One requester.

    Args:
        qp: index of the local queue pair.
        dqp: number of the remote one.
        first_psn: PSN of the first packet.
        peer_mpr: the peer's receive window, in units of 128 PSNs.
        settings: the NIC's.
        evs: entropy values of this queue pair; indices of it are ``path`` in rows to send.
        destination: the peer's congestion window, shared with the peer's other queue pairs.
        planes: u1 (n,), the plane of each EV.

    Attributes:
        state: RTS, or ERROR from the first failure on.
        port_state: the peer's ports that are down, a bit each, by the last call of on_sacks; None where
            no SACK of it was fresh.
        heard_ns: when anything of the peer last came in.
        counters: see :class:`RequesterCounters`.
    """

    def __init__(
        self,
        qp: int,
        dqp: int,
        first_psn: int,
        peer_mpr: int,
        settings: Settings,
        evs: EvSet,
        destination: Destination,
        planes: npt.NDArray[np.uint8],
    ) -> None:
        self.state = State.RTS
        self.port_state: int | None = None
        self.heard_ns = -1
        self.counters = RequesterCounters()
        self._evs = evs
        self._planes = planes
        self._destination = destination
        self._queue = SendQueue(qp, dqp, first_psn, settings.pmtu)
        allowed = peer_mpr * 128
        self._window = SendWindow(first_psn, allowed)
        self._sender = Sender(self._queue, self._window, allowed, settings, evs, destination, self.counters)
        self._round_trips = RoundTrips(int(planes.max(initial=0)) + 1, settings)
        self._sacks = SackReader(self._window, evs, planes, self._round_trips, settings.stamp_ns)
        self._nacks = NackReader(
            self._window,
            self._sender,
            evs,
            destination,
            self.counters,
            settings.nscc.base_rtt_ns,
            go_back_n=settings.go_back_n,
        )
        self._silence = Silence(
            qp,
            dqp,
            settings,
            self._window,
            self._sender,
            self._sacks,
            self._round_trips,
            evs,
            destination,
            self.counters,
        )
        self._failed_ns = 0
        self._completions: list[Rows] = []

    # Work requests

    @property
    def outstanding(self) -> int:
        """Work requests from the oldest that has not ended to the newest."""
        return self._queue.outstanding

    @property
    def can_post(self) -> bool:
        """Whether the send queue has room."""
        return self._queue.outstanding < DEPTH

    @property
    def pending(self) -> bool:
        """Whether there is anything to send, now or later."""
        return self._sender.pending

    @property
    def in_flight(self) -> int:
        """Payload bytes on their way."""
        return self._window.in_flight

    def post(
        self, wr_id: int, source: int, length: int, va: int, rkey: int, imm: int | None = None, flags: int = 0
    ) -> None:
        """Ask for ``length`` bytes at address ``source`` to be written to ``va`` at the peer.

        In state ERROR the request is flushed at once, as in ibverbs. ``flags``: Flag.SE or 0.

        Raises:
            UsageError: the send queue is full, or the message too long.
        """
        self._queue.post(wr_id, source, length, va, rkey, imm, flags)
        if self.state is State.ERROR:
            self._end_all(Status.WR_FLUSH_ERR, self._failed_ns)

    def take_completions(self) -> Rows:
        """COMPLETION rows since the last call, in the order in which the requests ended."""
        if not self._completions:
            return np.zeros(0, COMPLETION)
        rows = np.concatenate(self._completions)
        self._completions.clear()
        return rows

    # Sending

    def ready(self, now_ns: int) -> int:
        """How many packets it could send at this moment, at most; 0 where the windows or the queue let none out."""
        return self._sender.ready(now_ns) if self.state is State.RTS else 0

    def emit(self, now_ns: int, most: int) -> Rows:
        """Up to ``most`` packets to send now, as WRITE_OUT rows; ``path`` is an index of the EV set.

        What was lost goes first. The last packet asks for a SACK where no other can follow it now.
        """
        if self.state is State.ERROR:
            return np.zeros(0, WRITE_OUT)
        rows = self._sender.emit(now_ns, most)
        if len(rows):
            self._silence.sent(now_ns)
        elif self._sender.stalled:
            self._silence.stalled(now_ns)
        return rows

    # What the peer says

    def on_sacks(self, rows: Rows, now_ns: int) -> None:
        """SACK_IN rows of this queue pair, in order of arrival."""
        self.port_state = None
        if self.state is State.ERROR or not len(rows):
            return
        self.heard_ns = now_ns
        counters = self.counters
        counters.mrc_rx_sacks += len(rows)
        sane = self._sacks.sane(rows)
        if len(sane) < len(rows):
            counters.mrc_wrong_sacks += len(rows) - len(sane)
            rows = sane
            if not len(rows):
                return
        heard = self._sacks.read(rows, now_ns)
        counters.mrc_stale_sacks += heard.stale
        counters.mrc_wrong_port_states += heard.contradictory
        self.port_state = heard.port_state
        if heard.proven is not None and heard.proven >= 0:
            self._sender.proven = heard.proven
        if heard.probed:
            self._silence.answered(now_ns)
        marked = self._heed_marks(rows, now_ns)
        lost = heard.lost
        if len(lost):
            lost = lost[self._window.state[lost & self._window.mask] == IN_FLIGHT]
        if len(lost):
            counters.packet_seq_err += len(lost)
            slots = self._sender.lose(lost)
            if np.unique(self._planes[self._window.ev[slots]]).size > 1:
                # Losses of one plane are a path's or a switch's failure; those of several at once are a queue's.
                self._destination.on_loss(int(self._window.length[slots].sum()))
            self._evs.on_loss(np.unique(self._window.ev[slots]).astype("i8"), now_ns)
        self._acknowledge(heard, now_ns)
        self._destination.on_ack(
            now_ns,
            heard.nbytes,
            heard.rtt_ns,
            marked,
            max(rows["rcv_cwnd_pen"].tolist()),
            any(rows["restore_cwnd"].tolist()),
        )

    def _heed_marks(self, rows: Rows, now_ns: int) -> bool:
        marks = rows["m"]
        if not np.count_nonzero(marks):
            return False
        evs = self._evs.index_of(rows["entropy"])
        once = marks == SackMark.SKIP_ONCE
        if once.any():
            self.counters.mrc_ecn_echoes += int(once.sum())
            self._evs.on_ecn(evs[once], now_ns)
        always = marks == SackMark.ALWAYS_SKIP
        if always.any():
            self._evs.on_always_skip(np.unique(evs[always]), now_ns)
        return bool(once.any())

    def on_nacks(self, rows: Rows, now_ns: int) -> None:
        """NACK_IN rows of this queue pair; those of an earlier transmission than the last are passed over."""
        if self.state is State.ERROR or not len(rows):
            return
        self.heard_ns = now_ns
        if self._nacks.read(rows, now_ns):
            self.fail(Status.REM_OP_ERR, now_ns)

    def on_acks(self, rows: Rows, now_ns: int) -> None:
        """ACK_IN rows of this queue pair."""
        for msn, flags, syndrome in zip(
            rows["msn"].tolist(), rows["flags"].tolist(), rows["syndrome"].tolist(), strict=True
        ):
            if self.state is State.ERROR:
                return
            self.heard_ns = now_ns
            self.counters.mrc_rx_acks += 1
            number = psns.unwrap(msn, self._queue.done)
            if syndrome != Syndrome.ACK:
                self._on_nak(number, syndrome, now_ns)
            elif flags & Flag.R:
                self._on_ack(number, number + 1, now_ns)
            elif number > self._queue.done:
                self._on_ack(self._queue.done, number, now_ns)

    def _on_ack(self, first: int, end: int, now_ns: int) -> None:
        """The messages from ``first`` to ``end - 1`` are complete at the peer."""
        queue = self._queue
        if first < queue.done or (end == first + 1 and not queue.is_open(first)):
            return  # known already
        overdone = end > queue.posted or queue.end_of(end - 1) > self._window.next
        if overdone or (first > queue.done and queue.has_immediate(first)):
            self.counters.mrc_wrong_acks += 1
            return
        heard = self._sacks.acknowledged(queue.first_psn(first), queue.end_of(end - 1))
        self._completions.append(queue.complete(np.arange(first, end), Status.SUCCESS, now_ns))
        self._silence.progress(now_ns)
        self._acknowledge(heard, now_ns)
        if heard.nbytes:
            self._destination.on_ack(now_ns, heard.nbytes, None, False, 0, False)

    def _on_nak(self, number: int, syndrome: int, now_ns: int) -> None:
        status = _NAKS.get(Syndrome(syndrome)) if syndrome in _NAKS else None
        if status is None or not self._queue.is_open(number) or self._queue.first_psn(number) >= self._window.next:
            self.counters.mrc_wrong_acks += 1
            return
        self.counters.req_remote_access_errors += status is Status.REM_ACCESS_ERR
        self.counters.req_remote_invalid_request += status is Status.REM_INV_REQ_ERR
        self._end(np.array([number]), status, now_ns)
        self.fail(Status.WR_FLUSH_ERR, now_ns)

    def _acknowledge(self, heard: Heard, now_ns: int) -> None:
        if heard.packets:
            self._destination.gone(heard.nbytes)
            self._silence.arrived(now_ns)
            self._sender.arrived()
        if not self._unacknowledged():
            self._silence.stop()

    def plane_down(self, plane: int, now_ns: int) -> None:  # noqa: ARG002 - as all that happens
        """A port of this plane is down: what is in flight there is lost."""
        if self.state is State.ERROR:
            return
        lost = self._window.flying_on(self._planes == plane)
        if len(lost):
            self.counters.mrc_port_retransmits += len(lost)
            self._sender.lose(lost)

    def path_back(self, now_ns: int) -> None:
        """A probe of an EV that was retired was answered."""
        if self.state is State.RTS:
            self._silence.path_back(now_ns)

    # Time

    def next_due_ns(self) -> int | None:
        """When :meth:`on_timer` next has something to do."""
        due = self._silence.next_due_ns()
        held = self._sender.held_until_ns()
        return held if held is not None and (due is None or held < due) else due

    def on_timer(self, now_ns: int) -> Rows:
        """Do what is due; PROBE_OUT rows, whose ``path`` is an index of the EV set."""
        self._sender.release(now_ns)
        probes = self._silence.on_timer(now_ns, self.heard_ns)
        if probes is None:
            self.fail(Status.RETRY_EXC_ERR, now_ns)
            return np.zeros(0, PROBE_OUT)
        return probes

    def _unacknowledged(self) -> bool:
        queue, window = self._queue, self._window
        return (
            window.una < window.next
            or queue.first_psn(queue.done) < window.next
            or (self._sender.stalled and queue.outstanding > 0)
        )

    # The end

    def fail(self, status: Status, now_ns: int) -> None:
        """State ERROR: the oldest work request ends with ``status``, the others are flushed."""
        if self.state is State.ERROR:
            return
        self.state = State.ERROR
        self._failed_ns = now_ns
        self._sender.stop()
        self._silence.stop()
        self._end_all(status, now_ns)

    def _end_all(self, status: Status, now_ns: int) -> None:
        queue = self._queue
        if queue.outstanding:
            self._end(np.array([queue.done]), status, now_ns)
        self._end(np.arange(queue.done, queue.posted), Status.WR_FLUSH_ERR, now_ns)

    def _end(self, numbers: Indices, status: Status, now_ns: int) -> None:
        rows = self._queue.complete(numbers, status, now_ns)
        if len(rows):
            self.counters.req_cqe_error += len(rows)
            self.counters.req_cqe_flush_error += len(rows) if status is Status.WR_FLUSH_ERR else 0
            self._completions.append(rows)
