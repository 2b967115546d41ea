"""Messages as they arrive, packet by packet and in any order: are they consistent, and which are whole."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from testbed.mrc.codes import Opcode
from testbed.mrc.rows import MESSAGE, WRITE_IN, Rows

_NONE = -(1 << 62)
_FAR = 1 << 62
# Columns of what is known of a message. COUNT: packets that have arrived; FIRST: PSN of its first packet, _NONE while
# unknown; IMM: the immediate, _NONE without; LOW, HIGH: of the PSNs that arrived before FIRST was known.
_COUNT, _FIRST, _IMM, _LOW, _HIGH = range(5)
# The same in every packet of a message, compared as three numbers. ORIGIN: va - pmtu * PSN, which says that the VA
# advances by the MTU; KEY: rkey and length of the message, as they lie side by side in a row; RQ: the rqmsn.
_ORIGIN, _KEY, _RQ = range(5, 8)
_DMA = 8
_UNSEEN = (0, _NONE, _NONE, _FAR, _NONE, 0, 0, 0, 0)
_KEY_AT = WRITE_IN.fields["rkey"][1] if WRITE_IN.fields else 0

#: By opcode: 1 it begins a message, 2 it ends one, 4 it has an immediate; 8 it is no WRITE.
_KINDS = np.full(256, 8, np.int64)
_BEGINS, _ENDS, _IMMEDIATE, _PLACE = 1, 2, 4, 3
for _opcode, _kind in (
    (Opcode.WRITE_FIRST, _BEGINS),
    (Opcode.WRITE_MIDDLE, 0),
    (Opcode.WRITE_LAST, _ENDS),
    (Opcode.WRITE_LAST_IMM, _ENDS | _IMMEDIATE),
    (Opcode.WRITE_ONLY, _BEGINS | _ENDS),
    (Opcode.WRITE_ONLY_IMM, _BEGINS | _ENDS | _IMMEDIATE),
):
    _KINDS[_opcode] = _kind


class Complete(NamedTuple):
    """Messages that are complete: MESSAGE rows (``qp`` left 0) by number, and the PSN of each one's last packet."""

    rows: Rows
    last: list[int]


_NOTHING = Complete(np.zeros(0, MESSAGE), [])


class MessageTable:
    """The messages of one queue pair from the first that is not whole on.

    A packet does not say where in its message it stands, unless it is the first or the last, or the message the
    oldest unfinished one, whose beginning is known. Others are counted, and checked when their message's beginning is.
    What only a whole sequence shows (messages that overlap, a number left out) is found when the gap before it is
    filled: nothing is ever completed in order that is not consistent with all before it.

    Attributes:
        done: messages completed in order.
        head: PSN of the first packet of message number ``done``.
        immediates: WRITE_IMMs among those done.
    """

    def __init__(self, first_psn: int, pmtu: int, window: int) -> None:
        self.done = 0
        self.head = first_psn
        self.immediates = 0
        self._pmtu = pmtu
        self._shift = pmtu.bit_length() - 1
        ring = 1
        while ring < window + 2:  # the oldest, one for each PSN of the window, and one that is never seen yet
            ring *= 2
        self._mask = ring - 1
        self._known = np.empty((ring, len(_UNSEEN)), np.int64)
        self._known[:] = _UNSEEN
        self._known[0, _FIRST] = first_psn

    def offer(self, rows: Rows, psn: npt.NDArray[np.int64], cack: int, reach: int) -> Complete | None:
        """Take the first arrivals of some packets: all of them, or none where one does not fit to what is known.

        Args:
            rows: WRITE_IN, shape (n,), n > 0.
            psn: unwrapped, different from each other, none of them offered before.
            cack: up to where all had arrived before them.
            reach: up to where all have arrived with them.

        Returns:
            The messages now complete: WRITE_IMMs when all before them are, others when they are whole; None for a
            contradiction.
        """
        known, pmtu = self._known, self._pmtu
        ahead = rows["msn"] - np.uint16(self.done & 0xFFFF)  # u2: wraps as the wire's numbers do
        kind = _KINDS[rows["opcode"]]
        dma = rows["dma_length"].astype(np.int64)
        last = np.maximum(dma - 1, 0) >> self._shift  # position of the last packet
        good = rows["length"] == np.where(kind & _ENDS, dma - last * pmtu, pmtu)
        # Every message before this one took a PSN at least, and every WRITE_IMM was a message.
        good &= ahead <= psn - max(self.head, cack)
        good &= rows["rqmsn"] - np.uint16(self.immediates & 0xFFFF) <= ahead
        if not good.all():
            return None
        slot = (ahead + np.int64(self.done)) & self._mask
        before = known[slot]
        same = np.empty((psn.size, 4), np.int64)
        same[:, 0] = rows["va"].view(np.int64) - psn * pmtu
        same[:, 1] = rows.getfield(np.int64, _KEY_AT)
        same[:, 2] = rows["rqmsn"]
        same[:, 3] = dma
        fresh = before[:, _COUNT] == 0
        if fresh.any():
            # These columns mean nothing while the count is 0, and need not be restored. Of several packets of a new
            # message any may lead; the others must be like it.
            known[slot[fresh], _ORIGIN:] = same[fresh]
        complete = None
        if (known[slot, _ORIGIN:] == same).all() and self._fits(psn, slot, kind, last, before[:, _FIRST]):
            whole = self._count(rows, slot, kind, last)
            complete = self._advance((ahead[whole] + np.int64(self.done)).tolist(), reach)
        if complete is None:
            known[slot, :_ORIGIN] = before[:, :_ORIGIN]
        return complete

    def number_of(self, msn: int, psn: int, cack: int) -> int:
        """Which message a packet above ``cack`` says it is of, unwrapped; the oldest unfinished if that cannot be."""
        ahead = (msn - self.done) & 0xFFFF
        return self.done + ahead if ahead <= psn - max(self.head, cack) else self.done

    def _fits(
        self,
        psn: npt.NDArray[np.int64],
        slot: npt.NDArray[np.int64],
        kind: npt.NDArray[np.int64],
        last: npt.NDArray[np.int64],
        first: npt.NDArray[np.int64],
    ) -> bool:
        """Whether each packet stands where its opcode says; learns where messages begin. Leaves rests on failure."""
        known = self._known
        lost = first == _NONE
        adrift = bool(lost.any())
        if adrift:
            ends = lost & ((kind & _PLACE) != 0)
            known[slot[ends], _FIRST] = np.where(kind & _BEGINS, psn, psn - last)[ends]
            first, low, high = known[slot, _FIRST], known[slot, _LOW], known[slot, _HIGH]
            lost = first == _NONE
            if not (lost | ((low > first) & (high < first + last))).all():
                return False
            np.minimum.at(known[:, _LOW], slot[lost], psn[lost])
            np.maximum.at(known[:, _HIGH], slot[lost], psn[lost])
        position = psn - first
        place = (position == 0) + ((position == last) << np.int64(1))
        fits = (place == kind & ~_IMMEDIATE) & (position >= 0) & (position <= last)
        if adrift:
            fits |= lost & (kind == 0) & (last >= 2)
        return bool(fits.all())

    def _count(
        self, rows: Rows, slot: npt.NDArray[np.int64], kind: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Count arrivals; which rows are of messages that are whole with them."""
        known = self._known
        if (slot == slot[0]).all():
            known[slot[0], _COUNT] += slot.size
        else:
            np.add.at(known[:, _COUNT], slot, 1)
        immediate = (kind & _IMMEDIATE) != 0
        if immediate.any():
            known[slot[immediate], _IMM] = rows["imm"][immediate]
        # So many packets within their message, no two alike, are all of it; those of a message whose beginning is
        # unknown are not yet known to be within.
        whole: npt.NDArray[np.bool_] = known[slot, _COUNT] > last
        whole &= known[slot, _FIRST] != _NONE
        return whole

    def _advance(self, whole: list[int], reach: int) -> Complete | None:
        """Complete in order what can be; None, with nothing changed, where that contradicts what was said before."""
        known, mask = self._known, self._mask
        done, head, immediates = self.done, self.head, self.immediates
        numbers = {n for n in whole if known[n & mask, _IMM] == _NONE}
        count, first, imm, low, high, _, _, rq, dma = known[done & mask].tolist()
        last = max(dma - 1, 0) >> self._shift
        while count > last and first == head and rq == immediates & 0xFFFF:
            if imm != _NONE:
                immediates += 1
                numbers.add(done)
            done += 1
            head += last + 1
            count, first, imm, low, high, _, _, rq, dma = known[done & mask].tolist()
            last = max(dma - 1, 0) >> self._shift
        if count:
            inside = first == head or (first == _NONE and low > head and high < head + last)
            if not inside or rq != immediates & 0xFFFF:
                return None
        # All up to ``reach`` is there: were it to contain this whole message, or its first packet and nothing that
        # is known to be so, then another message's packets have taken its PSNs.
        if reach >= head and not (count and first == head and reach < head + last):
            return None
        complete = self._complete(sorted(numbers)) if numbers else _NOTHING
        if done > self.done:
            known[np.arange(self.done, done) & mask] = _UNSEEN
            self.done, self.head, self.immediates = done, head, immediates
            known[done & mask, _FIRST] = head
        return complete

    def _complete(self, numbers: list[int]) -> Complete:
        number = np.array(numbers)
        known = self._known[number & self._mask]
        rows = np.zeros(number.size, MESSAGE)
        rows["number"] = number
        rows["va"] = (known[:, _ORIGIN] + known[:, _FIRST] * self._pmtu).view(np.uint64)
        rows["bytes"] = known[:, _DMA]
        rows["has_imm"] = has_imm = known[:, _IMM] != _NONE
        rows["imm"] = np.where(has_imm, known[:, _IMM], 0)
        return Complete(rows, (known[:, _FIRST] + known[:, _COUNT] - 1).tolist())
