"""The receiving half of a queue pair: what may be placed, which messages are complete, what is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from testbed.mrc import psn as psns
from testbed.mrc.codes import NackReason, SackMark, Syndrome
from testbed.mrc.memory import Memory
from testbed.mrc.messages import MessageTable, Whole
from testbed.mrc.rows import ACK_OUT, MESSAGE, NACK_OUT, Dscp, Ecn, Flag, Rows
from testbed.mrc.sacks import Advice, SackBuilder, Trigger
from testbed.mrc.settings import Settings
from testbed.mrc.window import ReceiveWindow, is_run

#: PSNs in a receive window's unit.
_MPR_UNIT = 128
_MSN_MASK = 0xFFFFFF
_URGENT = int(Flag.A | Flag.RTX)
_NO_NACKS = np.zeros(0, NACK_OUT)
_NO_ACKS = np.zeros(0, ACK_OUT)
_NO_MESSAGES = np.zeros(0, MESSAGE)


@dataclass
class ResponderCounters:
    """What happened to packets of WRITEs that reached one queue pair; since it was made.

    Attributes:
        rx_write_requests: messages received whole (name: rdma).
        duplicate_request: packets that had arrived before (rdma).
        out_of_sequence: first arrivals not next above the highest PSN so far (rdma).
        np_ecn_marked_roce_packets: packets with ECN CE (rdma).
        resp_remote_access_errors: packets refused for their rkey, bounds or permission (rdma).
        mrc_resp_invalid_requests: packets refused as malformed, or for contradicting others.
        mrc_refused_in_error: packets that came when the queue pair was in error.
        mrc_packets_placed, mrc_bytes_placed: first arrivals and their payload.
        mrc_trimmed, mrc_trimmed_lasthop: packets whose payload was cut off on the way.
        mrc_psn_oor_window: packets beyond the receive window.
        mrc_sacks_sent, mrc_nacks_sent, mrc_acks_sent, mrc_naks_sent: answers handed out.
        mrc_probes_received: reliability probes.
    """

    rx_write_requests: int = 0
    duplicate_request: int = 0
    out_of_sequence: int = 0
    np_ecn_marked_roce_packets: int = 0
    resp_remote_access_errors: int = 0
    mrc_resp_invalid_requests: int = 0
    mrc_refused_in_error: int = 0
    mrc_packets_placed: int = 0
    mrc_bytes_placed: int = 0
    mrc_trimmed: int = 0
    mrc_trimmed_lasthop: int = 0
    mrc_psn_oor_window: int = 0
    mrc_sacks_sent: int = 0
    mrc_nacks_sent: int = 0
    mrc_acks_sent: int = 0
    mrc_naks_sent: int = 0
    mrc_probes_received: int = 0


class _Wrong(NamedTuple):
    """Why a queue pair went into error: number and PSN of what is refused, and how many of its batch it came after."""

    syndrome: Syndrome
    number: int
    psn: int
    taken: int


class Responder:
    """One queue pair's responder. Sans IO: rows in, rows out.

    For each batch: accept(), then the caller copies what it allowed, then finish(), then outbox(). Several batches may
    pass before an outbox().

    Attributes:
        port_state: down ports of this NIC, for its SACKs; set by the engine.
        rcv_cwnd_pen: back-pressure, 0 to 127, for its SACKs; set by the engine.
        error: why it answers everything with a NAK; None while it does not.
        counters: see :class:`ResponderCounters`.
    """

    def __init__(self, qp: int, dqp: int, first_psn: int, memory: Memory, settings: Settings) -> None:
        self.port_state = 0
        self.rcv_cwnd_pen = 0
        self.error: Syndrome | None = None
        self.counters = ResponderCounters()
        self._qp, self._dqp = qp, dqp
        self._memory = memory
        size = settings.mpr * _MPR_UNIT
        self._window = ReceiveWindow(first_psn, size)
        self._messages = MessageTable(first_psn, settings.pmtu)
        self._sacks = SackBuilder(qp, dqp, settings.mpr, settings.sack_packets, self._window)
        self._complete: list[tuple[int, int, int, int, bool, int]] = []  # MESSAGE rows
        self._nacks: list[Rows] = []
        self._out_of_order: list[tuple[int, int]] = []  # number and last PSN of messages complete before their turn
        self._acknowledged = 0
        self._ack_again = False
        self._nak: _Wrong | None = None
        self._nak_owed = False

    @property
    def cack(self) -> int:
        """Every PSN up to here has arrived; unwrapped."""
        return self._window.cack

    @property
    def completed(self) -> int:
        """Messages completed in order."""
        return self._messages.done

    def accept(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Take received packets.

        Args:
            rows: WRITE_IN of this queue pair, shape (n,), in the order of arrival.

        Returns:
            Which of them to place, shape (n,): whole, valid, inside the window, and there for the first time.
        """
        count = rows.size
        if not count or self.error is not None:
            self.counters.mrc_refused_in_error += count
            self._nak_owed |= bool(count)
            return np.zeros(count, np.bool_)
        window = self._window
        psn: npt.NDArray[np.int64] = psns.unwrap(rows["psn"], window.cack)
        trimmed = rows["trimmed"] != 0
        beyond = psn > window.cack + window.size
        away = trimmed | beyond
        take: npt.NDArray[np.bool_] = ~(window.arrived(psn) | away)
        new, at = rows, psn
        taken = int(np.count_nonzero(take))
        if 0 < taken < count:
            new, at = rows.take(take.nonzero()[0]), psn[take]
        if taken > 1 and not is_run(at):
            repeats = window.repeats(at)
            if repeats is not None:
                take[take.nonzero()[0][repeats]] = False
                new, at = rows.take(take.nonzero()[0]), psn[take]
                taken = at.size
        if taken:
            wrong = self._apply(new, at)
            if wrong is not None:
                self._fail(wrong)
                take[take.nonzero()[0][wrong.taken :]] = False
                self.counters.mrc_refused_in_error += count - 1 - wrong.taken
                return take
            self._sacks.arrived(at, _trigger(new, at, -1))
        if taken < count:
            self._answer_others(rows, psn, take, away, beyond)
        else:
            self._answer(rows, psn)
        return take

    def finish(self, now_ns: int) -> Rows:  # noqa: ARG002 - all parts of the engine are told the time
        """MESSAGE rows complete since the last call; WRITE_IMMs after all before them. Call when all is placed."""
        if not self._complete:
            return _NO_MESSAGES
        rows = np.array(self._complete, MESSAGE)
        self._complete.clear()
        return rows

    def on_probe(self, rows: Rows) -> None:
        """Reliability probes of the peer: PROBE_IN, shape (n,)."""
        if not rows.size:
            return
        self.counters.mrc_probes_received += rows.size
        if self.error is not None:
            self._nak_owed = True
            return
        self._sacks.probe(int(rows["ev"][-1]), int(rows["stamp"][-1]))
        self._ack_again = True

    def outbox(self, now_ns: int) -> tuple[Rows, Rows, Rows]:  # noqa: ARG002
        """SACK_OUT, NACK_OUT and ACK_OUT rows to send now, ``path`` left 0; they are handed out once."""
        counters = self.counters
        sacks = self._sacks.build(Advice(self.port_state, self.rcv_cwnd_pen, counters.mrc_bytes_placed))
        nacks = _NO_NACKS
        if self._nacks:
            nacks = np.concatenate(self._nacks)
            self._nacks.clear()
        acks = self._acks()
        counters.mrc_sacks_sent += sacks.size
        counters.mrc_nacks_sent += nacks.size
        return sacks, nacks, acks

    def _apply(self, rows: Rows, psn: npt.NDArray[np.int64]) -> _Wrong | None:
        """Take first arrivals into account; those before the first that is at fault, where one is."""
        window, messages, counters = self._window, self._messages, self.counters
        permitted = self._memory.permits(rows["rkey"], rows["va"], rows["length"])
        count = psn.size
        allowed = count if np.count_nonzero(permitted) == count else int(permitted.argmin())
        taken = messages.offer(rows[:allowed], psn[:allowed], window.cack)
        wrong = None
        if taken < count:
            syndrome = Syndrome.NAK_INVALID_REQUEST if taken < allowed else Syndrome.NAK_REMOTE_ACCESS
            at = psn.item(taken)
            wrong = _Wrong(syndrome, messages.number_of(rows["msn"].item(taken), at, window.cack), at, taken)
            rows, psn = rows[:taken], psn[:taken]
        if taken:
            counters.out_of_sequence += window.add(psn)
            counters.mrc_packets_placed += taken
            counters.mrc_bytes_placed += int(np.add.reduce(rows["length"]))
            whole, consistent = messages.advance(window.cack)
            if whole:
                self._tell(whole)
            if not consistent and wrong is None:
                wrong = _Wrong(Syndrome.NAK_INVALID_REQUEST, messages.done, messages.head, taken)
        return wrong

    def _tell(self, whole: list[Whole]) -> None:
        qp, done = self._qp, self._messages.done
        self.counters.rx_write_requests += len(whole)
        self._complete += [(qp, m.number, m.va, m.bytes, m.imm is not None, m.imm or 0) for m in whole]
        self._out_of_order += [(m.number, m.last_psn) for m in whole if m.number >= done]

    def _answer(self, rows: Rows, psn: npt.NDArray[np.int64]) -> None:
        """Note what SACKs packets that are here ask for."""
        marked = rows["ecn"] == Ecn.CE
        if np.count_nonzero(marked):
            positions = marked.nonzero()[0].tolist()
            self.counters.np_ecn_marked_roce_packets += len(positions)
            for i in positions:
                self._sacks.mark(_trigger(rows, psn, i, SackMark.SKIP_ONCE))
        urgent = rows["flags"] & _URGENT
        if np.count_nonzero(urgent):
            self._sacks.ask(_trigger(rows, psn, urgent.nonzero()[0].item(-1)))

    def _answer_others(
        self,
        rows: Rows,
        psn: npt.NDArray[np.int64],
        taken: npt.NDArray[np.bool_],
        away: npt.NDArray[np.bool_],
        beyond: npt.NDArray[np.bool_],
    ) -> None:
        """Note what SACKs and NACKs packets ask for of which some were not taken."""
        if away.any():
            self._refuse(rows, away, beyond)
            if (rows["flags"][away] & Flag.A).any():
                self._sacks.ask_for_rest()
        # What was cut on its way may have arrived whole before.
        here = (taken | ~beyond & self._window.arrived(psn)).nonzero()[0]
        if not here.size:
            return
        self._answer(rows.take(here), psn[here])
        again = here[~taken[here]]
        if again.size:
            self.counters.duplicate_request += again.size
            self._sacks.ask(_trigger(rows, psn, again.item(-1)))

    def _refuse(self, rows: Rows, away: npt.NDArray[np.bool_], beyond: npt.NDArray[np.bool_]) -> None:
        """NACKs for packets that were cut, or came from beyond the window."""
        refused = rows[away]
        lasthop = refused["dscp"] == Dscp.TRIMMED_LASTHOP
        reason = np.where(lasthop, NackReason.TRIMMED_LASTHOP, NackReason.TRIMMED)
        reason[beyond[away]] = NackReason.PSN_OOR_WINDOW
        nacks = np.zeros(refused.size, NACK_OUT)
        nacks["qp"] = self._qp
        nacks["dqp"] = self._dqp
        nacks["psn"] = self._window.cack & psns.MASK
        nacks["dscp"] = Dscp.CONTROL
        nacks["reason"] = reason
        nacks["entropy"] = refused["ev"]
        nacks["nack_psn"] = refused["psn"]
        nacks["stamp"] = refused["stamp"]
        self._nacks.append(nacks)
        counters = self.counters
        counters.mrc_trimmed += int(np.count_nonzero(reason == NackReason.TRIMMED))
        counters.mrc_trimmed_lasthop += int(np.count_nonzero(reason == NackReason.TRIMMED_LASTHOP))
        counters.mrc_psn_oor_window += int(np.count_nonzero(reason == NackReason.PSN_OOR_WINDOW))

    def _fail(self, wrong: _Wrong) -> None:
        """Refuse a packet, and with it everything from now on."""
        self.error = wrong.syndrome
        if wrong.syndrome is Syndrome.NAK_REMOTE_ACCESS:
            self.counters.resp_remote_access_errors += 1
        else:
            self.counters.mrc_resp_invalid_requests += 1
        self._nak = wrong
        self._nak_owed = True
        self._nacks.clear()
        self._sacks.clear()

    def _acks(self) -> Rows:
        """Transport ACKs: each message completed out of its turn, then the cumulative one; then the NAK, if owed."""
        done, messages = self._messages.done, self._messages
        told: list[tuple[int, int, int, int]] = []  # psn, flags, syndrome, msn
        if self._out_of_order:
            told += [(last, Flag.R, Syndrome.ACK, number) for number, last in self._out_of_order if number >= done]
            self._out_of_order.clear()
        if done > self._acknowledged or (self._ack_again and done):
            told.append((messages.head - 1, 0, Syndrome.ACK, done))
            self._acknowledged = done
        self._ack_again = False
        self.counters.mrc_acks_sent += len(told)
        if self._nak_owed and self._nak is not None:
            told.append((self._nak.psn, 0, self._nak.syndrome, self._nak.number))
            self.counters.mrc_naks_sent += 1
        self._nak_owed = False
        if not told:
            return _NO_ACKS
        qp, dqp = self._qp, self._dqp
        return np.array(
            [
                (0, qp, dqp, psn & psns.MASK, Dscp.CONTROL, flags, syndrome, msn & _MSN_MASK)
                for psn, flags, syndrome, msn in told
            ],
            ACK_OUT,
        )


def _trigger(rows: Rows, psn: npt.NDArray[np.int64], i: int, mark: SackMark = SackMark.NONE) -> Trigger:
    return Trigger(psn.item(i), rows["ev"].item(i), rows["stamp"].item(i), mark)
