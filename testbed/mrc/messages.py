"""Messages as they arrive, packet by packet and in any order: are they consistent, and which are whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from testbed.mrc.codes import Opcode
from testbed.mrc.rows import WRITE_IN, Rows

_MASK_16 = 0xFFFF
_MASK_64 = (1 << 64) - 1
_BEGINS, _ENDS, _IMMEDIATE = 1, 2, 4
_KINDS = {
    Opcode.WRITE_FIRST.value: _BEGINS,
    Opcode.WRITE_MIDDLE.value: 0,
    Opcode.WRITE_LAST.value: _ENDS,
    Opcode.WRITE_LAST_IMM.value: _ENDS | _IMMEDIATE,
    Opcode.WRITE_ONLY.value: _BEGINS | _ENDS,
    Opcode.WRITE_ONLY_IMM.value: _BEGINS | _ENDS | _IMMEDIATE,
}
_MIDDLE = Opcode.WRITE_MIDDLE.value
#: So many middle packets of one message in a row are cheaper to check as columns than one by one.
_STRETCH = 6
#: Where in a row, in bytes: rqmsn and msn side by side; rkey and dma_length side by side.
_NUMBERS_AT = WRITE_IN.fields["rqmsn"][1] if WRITE_IN.fields else 0
_KEY_AT = WRITE_IN.fields["rkey"][1] if WRITE_IN.fields else 0


class Packet(NamedTuple):
    """A WRITE_IN row as Python numbers."""

    t_ns: int
    qp: int
    ev: int
    psn: int
    plane: int
    dscp: int
    ecn: int
    flags: int
    opcode: int
    rqmsn: int
    msn: int
    stamp: int
    va: int
    rkey: int
    dma_length: int
    imm: int
    length: int
    frame: int
    at: int
    trimmed: int


class Whole(NamedTuple):
    """A complete message: its number (not wrapped), address, bytes, immediate or None, and its last packet's PSN."""

    number: int
    va: int
    bytes: int
    imm: int | None
    last_psn: int


class _Message:
    """What is known of a message that is not done.

    ``origin``: va - pmtu * PSN mod 2**64, alike in all packets as the VA advances by the MTU. ``last``: position of
    its last packet. ``first``: PSN of its first, None while unknown; ``low``, ``high``: of the PSNs that came before.
    """

    __slots__ = ("count", "dma", "first", "high", "imm", "last", "low", "origin", "rkey", "rqmsn")

    def __init__(self, origin: int, rkey: int, dma: int, rqmsn: int, last: int, first: int | None) -> None:
        self.origin, self.rkey, self.dma, self.rqmsn, self.last = origin, rkey, dma, rqmsn, last
        self.first = first
        self.count = 0
        self.imm: int | None = None
        self.low, self.high = 1 << 62, -1 << 62

    def surrounds(self, first: int) -> bool:
        """Whether the middle packets that came so far lie between its ends, if it begins at ``first``."""
        return self.low > first and self.high < first + self.last


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

    def __init__(self, first_psn: int, pmtu: int) -> None:
        self.done = 0
        self.head = first_psn
        self.immediates = 0
        self._end = first_psn  # PSN of that message's last packet, as far as it is known
        self._pmtu = pmtu
        self._known: dict[int, _Message] = {}
        self._whole: list[int] = []

    def offer(self, rows: Rows, psn: npt.NDArray[np.int64], cack: int) -> int:
        """Take first arrivals up to the first that does not fit to what is known; advance() must follow.

        Args:
            rows: WRITE_IN, shape (n,).
            psn: unwrapped, above ``cack``, different from each other, none of them offered before.
            cack: up to where all had arrived before them.

        Returns:
            How many were taken: n, or the index of the first that contradicts.
        """
        count = psn.size
        if count <= _STRETCH:
            return self._take_all(rows, psn, cack, 0, count)
        opcode, numbers = rows["opcode"], rows.getfield(np.int32, _NUMBERS_AT)
        change = opcode[1:] != opcode[:-1]
        change |= numbers[1:] != numbers[:-1]
        begin = pending = 0
        for end in [*(change.nonzero()[0] + 1).tolist(), count]:
            if end - begin > _STRETCH and opcode.item(begin) == _MIDDLE:
                # The first of them alone: it says what the others must be like.
                taken = self._take_all(rows, psn, cack, pending, begin + 1)
                if taken <= begin:
                    return taken
                pending = begin + 1
                if self._take_middle(rows[begin:end], psn[begin:end]):
                    pending = end
            begin = end
        return self._take_all(rows, psn, cack, pending, count)

    def advance(self, reach: int) -> tuple[list[Whole], bool]:
        """Complete what can be, now that all PSNs up to ``reach`` have arrived.

        Returns:
            The messages complete since the last call, by number: WRITE_IMMs when all before them are, others when
            they are whole. And whether all is consistent: if not, nothing more will ever be completed in order.
        """
        known, done, head = self._known, self.done, self.head
        complete = {n: known[n] for n in self._whole if known[n].imm is None}
        self._whole.clear()
        message = known.get(done)
        while message is not None and message.count > message.last:
            if message.first != head or message.rqmsn != self.immediates & _MASK_16:
                break
            if message.imm is not None:
                self.immediates += 1
                complete[done] = message
            del known[done]
            done += 1
            head += message.last + 1
            message = known.get(done)
        self.done, self.head, self._end = done, head, head
        consistent = True
        if message is not None:
            self._end = head + message.last
            if message.first is None and message.surrounds(head):
                message.first = head
            consistent = message.first == head and message.rqmsn == self.immediates & _MASK_16
        if reach >= head:
            # Were all PSNs of the oldest unfinished message there, or some while nothing is known of it, then packets
            # of others have taken its PSNs.
            consistent &= message is not None and reach < self._end
        whole = [
            Whole(n, (m.origin + m.first * self._pmtu) & _MASK_64, m.dma, m.imm, m.first + m.last)
            for n, m in sorted(complete.items())
            if m.first is not None
        ]
        return whole, consistent

    def number_of(self, msn: int, psn: int, cack: int) -> int:
        """Which message a packet above ``cack`` says it is of, unwrapped; the oldest unfinished if that cannot be."""
        ahead = (msn - self.done) & _MASK_16
        return self.done + ahead if ahead <= psn - max(self.head, cack) else self.done

    def offer_few(self, packets: Sequence[Packet], psn: Sequence[int], cack: int) -> int:
        """As offer(), one by one."""
        for i, (packet, number) in enumerate(zip(packets, psn, strict=True)):
            if not self._take(packet, number, cack):
                return i
        return len(psn)

    def _take_all(self, rows: Rows, psn: npt.NDArray[np.int64], cack: int, begin: int, end: int) -> int:
        """Take rows one by one; the index of the first that contradicts, else ``end``."""
        if begin == end:
            return end
        packets = [Packet._make(row) for row in rows[begin:end].tolist()]
        return begin + self.offer_few(packets, psn[begin:end].tolist(), cack)

    def _take(self, packet: Packet, psn: int, cack: int) -> bool:
        """Take one packet; whether it fits. Nothing has changed where it does not."""
        opcode, rqmsn, msn, _, va, rkey, dma, imm, length = packet[8:17]
        done, pmtu = self.done, self._pmtu
        kind = _KINDS.get(opcode)
        ahead = (msn - done) & _MASK_16
        # Every message before this one took a PSN at least.
        if kind is None or ahead > psn - max(self.head, cack) or (ahead and psn <= self._end):
            return False
        origin = (va - psn * pmtu) & _MASK_64
        message = self._known.get(done + ahead)
        if message is None:
            if (rqmsn - self.immediates) & _MASK_16 > ahead:  # every WRITE_IMM before it was a message
                return False
            last = max(dma - 1, 0) // pmtu
            message = _Message(origin, rkey, dma, rqmsn, last, None if ahead else self.head)
        elif (message.origin, message.rkey, message.dma, message.rqmsn) != (origin, rkey, dma, rqmsn):
            return False
        last = message.last
        if length != (dma - last * pmtu if kind & _ENDS else pmtu) or not self._stands(message, kind, psn):
            return False
        self._known[done + ahead] = message
        if not ahead:
            self._end = self.head + last
        message.count += 1
        if kind & _IMMEDIATE:
            message.imm = imm
        if message.count > last and message.first is not None:
            self._whole.append(done + ahead)
        return True

    def _stands(self, message: _Message, kind: int, psn: int) -> bool:
        """Whether a packet stands where its opcode says. Learns where the message begins, or is to look for it."""
        first, last = message.first, message.last
        if first is None:
            if not kind:
                if last >= 2:
                    message.low, message.high = min(message.low, psn), max(message.high, psn)
                return last >= 2
            first = psn if kind & _BEGINS else psn - last
            if not message.surrounds(first):
                return False
        position = psn - first
        fits = 0 <= position <= last and (position == 0) * _BEGINS + (position == last) * _ENDS == kind & ~_IMMEDIATE
        if fits:
            message.first = first
        return fits

    def _take_middle(self, rows: Rows, psn: npt.NDArray[np.int64]) -> bool:
        """Take the rest of some middle packets of one message of which the first was taken: all of them or none."""
        number = self.done + ((rows["msn"].item(0) - self.done) & _MASK_16)
        message = self._known[number]
        if message.first is None:
            return False
        count = psn.size
        position = psn - message.first
        good = position > 0
        good &= position < message.last
        good &= rows["length"] == self._pmtu
        key = rows.getfield(np.int64, _KEY_AT)
        good &= key == key.item(0)
        origin = rows["va"].view(np.int64) - position * self._pmtu
        good &= origin == origin.item(0)
        if np.count_nonzero(good) < count:
            return False
        message.count += count - 1
        if message.count > message.last:
            self._whole.append(number)
        return True
