"""The send queue of a queue pair: posted messages in a ring of rows, their packets, and how each one ended."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError
from testbed.mrc.psn import MASK as PSN_MASK
from testbed.mrc.rows import COMPLETION, WRITE_OUT, Dscp, Flag, Rows, Status

#: Work requests that may be outstanding: fewer than half of what the 16 bits of METH.msn tell apart.
DEPTH = 1 << 13
#: Bytes of the longest message, as in IBTA.
LONGEST = 1 << 31
_RING = DEPTH - 1
_FIRST, _LAST, _IMM = 1, 2, 4
#: Opcode of a packet by its place in the message: none of the bits is a middle one.
_OPCODES = np.array([0xC7, 0xC6, 0xC8, 0xCA, 0xC7, 0xC6, 0xC9, 0xCB], "u1")


class SendQueue:
    """Messages by number, from 0; the packets of each have consecutive PSNs (unwrapped).

    Attributes:
        posted: messages posted so far.
        done: all messages before this number have ended.
        end_psn: PSN after the last packet posted.
    """

    def __init__(self, qp: int, dqp: int, first_psn: int, pmtu: int) -> None:
        self.posted = 0
        self.done = 0
        self.end_psn = first_psn
        self._qp = qp
        self._dqp = dqp
        self._pmtu = pmtu
        self._immediates = 0
        self._cursor = 0
        self._solicited = False
        self._packets = np.zeros(DEPTH, WRITE_OUT)  # the first packet's row, whose opcode is _IMM or 0
        self._first = np.zeros(DEPTH, "i8")
        self._end = np.zeros(DEPTH, "i8")
        self._wr_id = np.zeros(DEPTH, "u8")
        self._open = np.zeros(DEPTH, bool)

    @property
    def outstanding(self) -> int:
        """Messages from the oldest that has not ended to the newest."""
        return self.posted - self.done

    def post(
        self, wr_id: int, source: int, length: int, va: int, rkey: int, imm: int | None = None, flags: int = 0
    ) -> None:
        """Append a message of ``length`` bytes at address ``source``, for ``va`` at the peer; ``flags``: Flag.SE or 0.

        Raises:
            UsageError: the queue is full, or the message longer than 2**31 bytes.
        """
        if self.outstanding >= DEPTH:
            raise UsageError(
                "the send queue is full",
                found=f"{self.outstanding} outstanding work requests",
                expected=f"fewer than {DEPTH}",
                remedy="take completions before posting more",
            )
        if not 0 <= length <= LONGEST:
            raise UsageError(
                "a message of this length cannot be sent",
                found=f"{length} bytes",
                expected=f"0 to {LONGEST}",
                remedy="split it",
            )
        slot = self.posted & _RING
        self._packets[slot] = (
            0,
            self._qp,
            self._dqp,
            0,
            Dscp.TRIMMABLE,
            Flag.TS | (flags & Flag.SE),
            0 if imm is None else _IMM,
            self._immediates & 0xFFFF,
            self.posted & 0xFFFF,
            0,
            va,
            rkey,
            length,
            imm or 0,
            0,
            source,
        )
        self._first[slot] = self.end_psn
        self.end_psn += max(1, -(-length // self._pmtu))
        self._end[slot] = self.end_psn
        self._wr_id[slot] = wr_id
        self._open[slot] = True
        self._immediates += imm is not None
        self._solicited |= bool(flags & Flag.SE)
        self.posted += 1

    def next_length(self) -> int:
        """Payload bytes of the largest packet of the message to be sent next."""
        return min(self._pmtu, int(self._packets["dma_length"][self._cursor & _RING]))

    def rows(self, psn: int, count: int) -> Rows:
        """``count`` packets from ``psn``, the first never sent, as WRITE_OUT rows; path and stamp are left 0."""
        slot = self._cursor & _RING
        if psn + count <= self._end[slot]:
            return self._rows_of_one(slot, psn, count)
        messages = np.arange(self._cursor, min(self._cursor + count, self.posted)) & _RING
        counts = np.minimum(self._end[messages], psn + count)
        counts[1:] -= counts[:-1].copy()
        counts[0] -= psn
        of = np.repeat(messages, counts)
        rows = self._packets[of]
        psns = np.arange(psn, psn + count)
        within = psns - self._first[of]
        last = psns + 1 == self._end[of]
        rows["psn"] = psns & PSN_MASK
        rows["opcode"] = _OPCODES[rows["opcode"] + (within == 0) + 2 * last]
        if self._solicited:
            rows["flags"][~last] &= 0xFF ^ int(Flag.SE)
        offset = (within * self._pmtu).view("u8")
        rows["length"] = np.minimum(rows["dma_length"] - offset, self._pmtu)
        rows["va"] += offset
        rows["source"] += offset
        return rows

    def _rows_of_one(self, slot: int, psn: int, count: int) -> Rows:
        """The same, where all are of one message."""
        rows = np.empty(count, WRITE_OUT)
        rows[:] = self._packets[slot]
        within = psn - int(self._first[slot])
        rows["psn"] = np.arange(psn, psn + count) & PSN_MASK
        offset = np.arange(within * self._pmtu, (within + count) * self._pmtu, self._pmtu, dtype="u8")
        rows["va"] += offset
        rows["source"] += offset
        rows["length"] = self._pmtu
        kind = int(rows["opcode"][0])
        rows["opcode"] = _OPCODES[kind]
        if within == 0:
            rows["opcode"][0] = _OPCODES[kind | _FIRST]
        if psn + count == self._end[slot]:
            rows["opcode"][-1] = _OPCODES[kind | _LAST | (_FIRST if within + count == 1 else 0)]
            rows["length"][-1] = int(rows["dma_length"][0]) - (within + count - 1) * self._pmtu
            count -= 1
        if self._solicited:
            rows["flags"][:count] &= 0xFF ^ int(Flag.SE)
        return rows

    def sent_to(self, psn: int) -> None:
        """All packets before ``psn`` have been sent once."""
        while self._cursor < self.posted and self._end[self._cursor & _RING] <= psn:
            self._cursor += 1

    def first_psn(self, number: int) -> int:
        """PSN of a message's first packet; for the next message to be posted, the PSN it would have."""
        return int(self._first[number & _RING]) if number < self.posted else self.end_psn

    def end_of(self, number: int) -> int:
        """PSN after a message's last packet."""
        return int(self._end[number & _RING])

    def is_open(self, number: int) -> bool:
        """Whether this message is outstanding."""
        return self.done <= number < self.posted and bool(self._open[number & _RING])

    def has_immediate(self, number: int) -> bool:
        """Whether it is a WRITE_IMM."""
        return bool(self._packets["opcode"][number & _RING] & _IMM)

    def complete(self, numbers: npt.NDArray[np.int64], status: Status, now_ns: int) -> Rows:
        """End these messages as far as they are outstanding; their COMPLETION rows."""
        slots = numbers & _RING
        slots = slots[self._open[slots]]
        self._open[slots] = False
        rows = np.zeros(len(slots), COMPLETION)
        rows["wr_id"] = self._wr_id[slots]
        rows["t_ns"] = now_ns
        rows["qp"] = self._qp
        rows["status"] = status
        rows["bytes"] = self._packets["dma_length"][slots]
        while self.done < self.posted and not self._open[self.done & _RING]:
            self.done += 1
        return rows
