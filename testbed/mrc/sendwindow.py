"""The packets between the oldest not acknowledged and the newest sent: what was sent, when, by which EV, and its state.

Columns are rings indexed by ``psn & mask``; PSNs are unwrapped. An entry stays readable until its place is used again,
which is at least one receive window later.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc.rows import WRITE_OUT, Rows

Indices = npt.NDArray[np.int64]


#: State of a packet: on its way; to be sent again; to be sent again later; arrived. (Plain numbers: numpy takes several
#: times as long to compare with the member of an enum.)
IN_FLIGHT, LOST, HELD, ARRIVED = 1, 2, 3, 4


class SendWindow:
    """The window.

    Attributes:
        una: oldest PSN not known to have arrived. next: PSN to be sent next.
        rows: each packet as last sent; ``path`` is an index of the EV set. ev, stamp, length: columns of it.
        state: IN_FLIGHT, LOST, HELD or ARRIVED.
        sent_ns, order: time and running number of the last transmission. times: how often it was sent.
        in_flight: payload bytes on their way. payload: payload bytes of all packets, each once.
    """

    def __init__(self, first_psn: int, packets: int) -> None:
        size = 1 << (2 * packets - 1).bit_length()
        self.mask = size - 1
        self.una = first_psn
        self.next = first_psn
        self.rows = np.zeros(size, WRITE_OUT)
        self.state = np.full(size, ARRIVED, "u1")
        self.sent_ns = np.zeros(size, "i8")
        self.order = np.zeros(size, "i8")
        self.times = np.zeros(size, "u2")
        self.ev = self.rows["path"]
        self.stamp = self.rows["stamp"]
        self.length = self.rows["length"]
        self.in_flight = 0
        self.payload = 0
        self._transmissions = 0

    def slots(self, first: int, end: int) -> Indices:
        """Where the PSNs from ``first`` to ``end - 1`` are kept."""
        return np.arange(first, end) & self.mask

    def sent(self, rows: Rows, slots: Indices, now_ns: int, nbytes: int) -> None:
        """Packets went out: new ones, whose PSNs begin at ``next``, or ones that were LOST."""
        self.rows[slots] = rows
        self.state[slots] = IN_FLIGHT
        self.sent_ns[slots] = now_ns
        self.order[slots] = np.arange(self._transmissions, self._transmissions + len(rows))
        self._transmissions += len(rows)
        self.in_flight += nbytes

    def arrived(self, slots: Indices) -> int:
        """Packets are known to have arrived; the payload bytes that are thereby no longer in flight."""
        flying = self.state[slots] == IN_FLIGHT
        gone = int(np.add.reduce(self.length[slots], where=flying, dtype="i8"))
        self.state[slots] = ARRIVED
        self.in_flight -= gone
        return gone

    def lost(self, slots: Indices, state: int = LOST) -> int:
        """Packets in flight are taken for lost; their payload bytes."""
        gone = int(self.length[slots].sum())
        self.state[slots] = state
        self.in_flight -= gone
        return gone

    def advance(self) -> None:
        """Move ``una`` past what has arrived."""
        waiting = self.state[self.slots(self.una, self.next)] != ARRIVED
        self.una = self.una + int(waiting.argmax()) if waiting.any() else self.next

    def flies_beside(self, ev: int) -> bool:
        """Whether anything is in flight on another EV than this (index of the EV set)."""
        slots = self.slots(self.una, self.next)
        return bool(((self.state[slots] == IN_FLIGHT) & (self.ev[slots] != ev)).any())

    def flying_on(self, evs: npt.NDArray[np.bool_]) -> Indices:
        """PSNs in flight whose EV is chosen by ``evs`` (by index of the EV set)."""
        slots = self.slots(self.una, self.next)
        return self.una + np.flatnonzero((self.state[slots] == IN_FLIGHT) & evs[self.ev[slots]])
