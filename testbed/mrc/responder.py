"""The receiving half of a queue pair: what may be placed, which messages are complete, what is answered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc import psn as psns
from testbed.mrc.acks import TransportAcks, Wrong
from testbed.mrc.codes import NackReason, Syndrome
from testbed.mrc.memory import Memory
from testbed.mrc.messages import MessageTable, Packet, Whole
from testbed.mrc.responder_counters import ResponderCounters
from testbed.mrc.rows import MESSAGE, NACK_OUT, Dscp, Ecn, Flag, Rows
from testbed.mrc.sacks import Advice, SackBuilder, Trigger
from testbed.mrc.settings import Settings
from testbed.mrc.window import CHUNK_BITS, ReceiveWindow, chunks_of, is_run

#: PSNs in a receive window's unit.
_MPR_UNIT = 128
# An enumeration's member costs a look-up of a microsecond each time.
_URGENT = int(Flag.A | Flag.RTX)
_CE = int(Ecn.CE)
_ACK = int(Syndrome.ACK)
_CONTROL = int(Dscp.CONTROL)
#: So many packets are cheaper to look at one by one than as columns.
_FEW = 4
_NO_NACKS = np.zeros(0, NACK_OUT)
_NO_MESSAGES = np.zeros(0, MESSAGE)


class Responder:
    """One queue pair's responder. Sans IO: rows in, rows out.

    For each batch: accept(), then the caller copies what it allowed, then finish(), then outbox(). Several batches may
    pass before an outbox().

    Attributes:
        port_state: down ports of this NIC, for its SACKs; set by the engine.
        rcv_cwnd_pen: back-pressure, 0 to 127, for its SACKs; set by the engine.
        counters: see :class:`ResponderCounters`.
    """

    def __init__(self, qp: int, dqp: int, first_psn: int, memory: Memory, settings: Settings) -> None:
        self.port_state = 0
        self.rcv_cwnd_pen = 0
        self.counters = ResponderCounters()
        self._qp, self._dqp = qp, dqp
        self._memory = memory
        size = settings.mpr * _MPR_UNIT
        self._window = ReceiveWindow(first_psn, size)
        self._in_order = settings.go_back_n
        self._messages = MessageTable(first_psn, settings.pmtu)
        self._sacks = SackBuilder(qp, dqp, settings.mpr, settings.sack_packets, self._window)
        self._complete: list[tuple[int, int, int, int, bool, int]] = []  # MESSAGE rows
        self._nacks: list[Rows] = []
        self._acks = TransportAcks(qp, dqp)

    @property
    def error(self) -> Syndrome | None:
        """Why everything is answered with a NAK; None while it is not."""
        return None if self._acks.error is None else self._acks.error.syndrome

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
        if not count:
            return np.zeros(0, np.bool_)
        if self._acks.error is not None:
            self.counters.mrc_refused_in_error += count
            self._acks.again()
            return np.zeros(count, np.bool_)
        if count <= _FEW and not self._in_order:
            packets = [Packet._make(row) for row in rows.tolist()]
            numbers = self._plain(packets)
            if numbers is not None:
                return self._accept_few(packets, numbers)
        window = self._window
        psn: npt.NDArray[np.int64] = psns.unwrap(rows["psn"], window.cack)
        trimmed = rows["trimmed"] != 0
        beyond = psn > window.cack + window.size
        if self._in_order:
            beyond |= _out_of_order(psn, window.cack)
        away = trimmed | beyond
        take: npt.NDArray[np.bool_] = ~(window.arrived(psn) | away)
        new, at = rows, psn
        taken = int(np.count_nonzero(take))
        if taken < count:
            new, at = rows.take(take.nonzero()[0]), psn[take]
        run = taken > 0 and is_run(at)
        repeats = None if run else window.repeats(at)
        if repeats is not None:
            take[take.nonzero()[0][repeats]] = False
            new, at = rows.take(take.nonzero()[0]), psn[take]
            taken = at.size
        if taken:
            wrong = self._apply(new, at, run)
            if wrong is not None:
                return self._fail(wrong, take)
            self._sacks.arrived(chunks_of(at, run), taken, _trigger(new, at, -1))
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
        self._acks.again()
        if self._acks.error is None:
            self._sacks.probe(rows["ev"].item(-1), rows["stamp"].item(-1))

    def outbox(self, now_ns: int) -> tuple[Rows, Rows, Rows]:  # noqa: ARG002
        """SACK_OUT, NACK_OUT and ACK_OUT rows to send now, ``path`` left 0; they are handed out once."""
        counters = self.counters
        sacks = self._sacks.build(Advice(self.port_state, self.rcv_cwnd_pen, counters.mrc_bytes_placed))
        nacks = _NO_NACKS
        if self._nacks:
            nacks = np.concatenate(self._nacks)
            self._nacks.clear()
        acks = self._acks.build(self._messages.done, self._messages.head)
        naks = int(acks.size > 0 and acks["syndrome"].item(-1) != _ACK)
        counters.mrc_acks_sent += acks.size - naks
        counters.mrc_naks_sent += naks
        counters.mrc_sacks_sent += sacks.size
        counters.mrc_nacks_sent += nacks.size
        return sacks, nacks, acks

    def _plain(self, packets: list[Packet]) -> list[int] | None:
        """The PSNs of packets, unwrapped, if nothing but their message remains to be checked; else None."""
        window, permits = self._window, self._memory.permits_one
        cack, near = window.cack, window.cack & psns.MASK
        psn = [cack + psns.distance(p.psn, near) for p in packets]
        if len(set(psn)) < len(psn):
            return None
        for p, n in zip(packets, psn, strict=True):
            if p.trimmed or not window.awaits(n) or not permits(p.rkey, p.va, p.length):
                return None
        return psn

    def _accept_few(self, packets: list[Packet], psn: list[int]) -> npt.NDArray[np.bool_]:
        """As accept(), cheaper for a few of which nothing is special."""
        take = np.ones(len(psn), np.bool_)
        taken = self._messages.offer_few(packets, psn, self._window.cack)
        wrong = None
        if taken < len(psn):
            wrong = self._wrong(Syndrome.NAK_INVALID_REQUEST, packets[taken].msn, psn[taken], taken)
            packets, psn = packets[:taken], psn[:taken]
        if taken:
            self.counters.out_of_sequence += self._window.add_few(psn)
            wrong = self._settle(taken, sum(p.length for p in packets)) or wrong
        if wrong is not None:
            return self._fail(wrong, take)
        last = packets[-1]
        self._sacks.arrived({n >> CHUNK_BITS for n in psn}, taken, Trigger(psn[-1], last.ev, last.stamp))
        for p, n in zip(packets, psn, strict=True):
            if p.ecn == _CE:
                self.counters.np_ecn_marked_roce_packets += 1
                self._sacks.mark(Trigger(n, p.ev, p.stamp))
            if p.flags & _URGENT:
                self._sacks.ask(Trigger(n, p.ev, p.stamp))
        return take

    def _apply(self, rows: Rows, psn: npt.NDArray[np.int64], run: bool) -> Wrong | None:
        """Take first arrivals into account; those before the first that is at fault, where one is."""
        permitted = self._memory.permits(rows["rkey"], rows["va"], rows["length"])
        count = psn.size
        allowed = count if np.count_nonzero(permitted) == count else int(permitted.argmin())
        taken = self._messages.offer(rows[:allowed], psn[:allowed], self._window.cack)
        wrong = None
        if taken < count:
            syndrome = Syndrome.NAK_INVALID_REQUEST if taken < allowed else Syndrome.NAK_REMOTE_ACCESS
            wrong = self._wrong(syndrome, rows["msn"].item(taken), psn.item(taken), taken)
            rows, psn = rows[:taken], psn[:taken]
        if taken:
            self.counters.out_of_sequence += self._window.add(psn, run)
            wrong = self._settle(taken, int(np.add.reduce(rows["length"]))) or wrong
        return wrong

    def _wrong(self, syndrome: Syndrome, msn: int, psn: int, taken: int) -> Wrong:
        return Wrong(syndrome, self._messages.number_of(msn, psn, self._window.cack), psn, taken)

    def _settle(self, taken: int, size: int) -> Wrong | None:
        """Count what the window took, and complete what messages can be; what is wrong with them, if anything."""
        messages, counters = self._messages, self.counters
        counters.mrc_packets_placed += taken
        counters.mrc_bytes_placed += size
        whole, consistent = messages.advance(self._window.cack)
        if whole:
            self._tell(whole)
        return None if consistent else Wrong(Syndrome.NAK_INVALID_REQUEST, messages.done, messages.head, taken)

    def _tell(self, whole: list[Whole]) -> None:
        qp = self._qp
        self.counters.rx_write_requests += len(whole)
        self._complete += [(qp, m.number, m.va, m.bytes, m.imm is not None, m.imm or 0) for m in whole]
        self._acks.complete(whole, self._messages.done)

    def _answer(self, rows: Rows, psn: npt.NDArray[np.int64]) -> None:
        """Note what SACKs packets that are here ask for."""
        marked = rows["ecn"] == _CE
        if np.count_nonzero(marked):
            positions = marked.nonzero()[0].tolist()
            self.counters.np_ecn_marked_roce_packets += len(positions)
            for i in positions:
                self._sacks.mark(_trigger(rows, psn, i))
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
        nacks["dscp"] = _CONTROL
        nacks["reason"] = reason
        nacks["entropy"] = refused["ev"]
        nacks["nack_psn"] = refused["psn"]
        nacks["stamp"] = refused["stamp"]
        self._nacks.append(nacks)
        counters = self.counters
        counters.mrc_rx_trimmed += int(np.count_nonzero(reason == NackReason.TRIMMED))
        counters.mrc_rx_trimmed_lasthop += int(np.count_nonzero(reason == NackReason.TRIMMED_LASTHOP))
        counters.mrc_psn_oor_window += int(np.count_nonzero(reason == NackReason.PSN_OOR_WINDOW))

    def _fail(self, wrong: Wrong, take: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Refuse a packet, and with it everything from now on; what remains of ``take`` to be placed."""
        self._acks.fail(wrong)
        if wrong.syndrome is Syndrome.NAK_REMOTE_ACCESS:
            self.counters.resp_remote_access_errors += 1
        else:
            self.counters.mrc_resp_invalid_requests += 1
        self._nacks.clear()
        self._sacks.clear()
        refused = take.nonzero()[0][wrong.taken :]
        take[refused] = False
        if refused.size:
            self.counters.mrc_refused_in_error += take.size - 1 - refused.item(0)
        return take


def _out_of_order(psn: npt.NDArray[np.int64], cack: int) -> npt.NDArray[np.bool_]:
    """Which packets come before one that is missing, where only the next in order may be taken."""
    early = []
    for one in psn.tolist():
        early.append(one > cack + 1)
        cack += one == cack + 1
    return np.array(early, np.bool_)


def _trigger(rows: Rows, psn: npt.NDArray[np.int64], i: int) -> Trigger:
    return Trigger(psn.item(i), rows["ev"].item(i), rows["stamp"].item(i))
