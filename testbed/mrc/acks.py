"""Transport acknowledgements that a responder owes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from testbed.mrc import psn as psns
from testbed.mrc.codes import Syndrome
from testbed.mrc.messages import Whole
from testbed.mrc.rows import ACK_OUT, Dscp, Flag, Rows

_MSN_MASK = 0xFFFFFF
_ACK, _R, _CONTROL = int(Syndrome.ACK), int(Flag.R), int(Dscp.CONTROL)
_NO_ACKS = np.zeros(0, ACK_OUT)


class Wrong(NamedTuple):
    """Why a queue pair went into error: number and PSN of what is refused, and how many of its batch it came after."""

    syndrome: Syndrome
    number: int
    psn: int
    taken: int


class TransportAcks:
    """Collects what is to be acknowledged, or refused, and tells it once.

    Attributes:
        error: why everything is refused; None while it is not.
    """

    def __init__(self, qp: int, dqp: int) -> None:
        self.error: Wrong | None = None
        self._qp, self._dqp = qp, dqp
        self._early: list[Whole] = []
        self._acknowledged = 0
        self._again = False
        self._refuse = False

    def complete(self, whole: list[Whole], done: int) -> None:
        """Messages that are complete, when those before number ``done`` are."""
        self._early += [message for message in whole if message.number >= done]

    def again(self) -> None:
        """Somebody came who may have missed the newest one: in error, the NAK."""
        self._again = self._refuse = True

    def fail(self, wrong: Wrong) -> None:
        """From now on there is nothing to acknowledge; what was complete before still is."""
        self.error = wrong
        self._refuse = True

    def build(self, done: int, head: int) -> Rows:
        """ACK_OUT rows: each message completed before its turn, the cumulative one, the NAK; each if it is owed.

        Args:
            done: messages completed in order.
            head: unwrapped PSN that follows the last of them.
        """
        told: list[tuple[int, int, int, int]] = []  # psn, flags, syndrome, msn
        if self._early:
            told += [(m.last_psn, _R, _ACK, m.number) for m in self._early if m.number >= done]
            self._early.clear()
        if done > self._acknowledged or (self._again and done and self.error is None):
            told.append((head - 1, 0, _ACK, done))
            self._acknowledged = done
        if self._refuse and self.error is not None:
            told.append((self.error.psn, 0, int(self.error.syndrome), self.error.number))
        self._again = self._refuse = False
        if not told:
            return _NO_ACKS
        qp, dqp = self._qp, self._dqp
        return np.array(
            [
                (0, qp, dqp, psn & psns.MASK, _CONTROL, flags, syndrome, msn & _MSN_MASK)
                for psn, flags, syndrome, msn in told
            ],
            ACK_OUT,
        )
