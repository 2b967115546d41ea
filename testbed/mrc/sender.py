"""What a requester sends next: what was lost, then what is new, as far as windows and EVs allow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from testbed.mrc.evs import EvSet
from testbed.mrc.nscc import Destination
from testbed.mrc.requestercounters import RequesterCounters
from testbed.mrc.rows import WRITE_OUT, Dscp, Flag, Rows
from testbed.mrc.sendqueue import SendQueue
from testbed.mrc.sendwindow import HELD, LOST, Indices, SendWindow
from testbed.mrc.settings import Settings

_NO_PSNS = np.zeros(0, "i8")


class Sender:
    """The sending side of a requester.

    Attributes:
        urgent: one packet may go whatever the congestion window says: the ACK timer wants it.
        stalled: something was to be sent, and no EV was usable.
        proven: index of an EV by which a reliability probe has just got through.
    """

    def __init__(
        self,
        queue: SendQueue,
        window: SendWindow,
        allowed: int,
        settings: Settings,
        evs: EvSet,
        destination: Destination,
        counters: RequesterCounters,
    ) -> None:
        self.urgent = False
        self.stalled = False
        self.proven: int | None = None
        self.counters = counters
        self._queue = queue
        self._window = window
        self._allowed = allowed
        self._settings = settings
        self._evs = evs
        self._destination = destination
        self._lost: Indices = _NO_PSNS  # PSNs to send again, ascending
        self._held: list[tuple[int, int]] = []  # (due, PSN), ascending

    @property
    def pending(self) -> bool:
        """Whether there is anything to send, now or later."""
        return bool(len(self._lost) or self._held) or self._window.next < self._queue.end_psn

    def held_until_ns(self) -> int | None:
        """When something that was held may be sent again."""
        return self._held[0][0] if self._held else None

    def ready(self, now_ns: int) -> int:
        """How many packets it could send at this moment, at most; 0 where the windows or the queue let none out."""
        self.release(now_ns)
        window, end = self._window, self._queue.end_psn
        count = len(self._lost)
        if not count and window.next >= end:
            return 0
        limit = window.una + self._allowed
        if not count:
            nbytes = self._queue.next_length()
        elif (first := int(self._lost[0])) < limit:
            nbytes = int(window.length[first & window.mask])
        else:
            return 0
        if nbytes > self._destination.room() and self._destination.in_flight and not self.urgent:
            return 0
        return count + max(0, min(end, limit) - window.next)

    def emit(self, now_ns: int, most: int) -> Rows:
        """Up to ``most`` packets to send now, as WRITE_OUT rows; ``path`` is an index of the EV set.

        What was lost goes first. The last packet asks for a SACK where no other can follow it now.
        """
        possible = min(self.ready(now_ns), most)
        if possible <= 0:
            return np.zeros(0, WRITE_OUT)
        self.stalled = False
        rows = self._emit_lost(now_ns, possible)
        if len(rows):
            self.urgent = False
        if not len(self._lost) and not self.stalled and len(rows) < possible:
            new = self._emit_new(now_ns, possible - len(rows))
            rows = np.concatenate([rows, new]) if len(rows) else new
        self.urgent = False
        if len(rows):
            self.counters.mrc_tx_packets += len(rows)
            if self.stalled or not self.ready(now_ns):
                rows["flags"][-1] |= int(Flag.A)
        return rows

    def _emit_lost(self, now_ns: int, most: int) -> Rows:
        window = self._window
        psn = self._lost[:most]
        slots = psn[psn < window.una + self._allowed] & window.mask
        if not len(slots):
            return np.zeros(0, WRITE_OUT)
        slots = slots[: self._fitting(window.length[slots])]
        if not len(slots):
            return np.zeros(0, WRITE_OUT)
        evs = self._evs.take_fresh(window.ev[slots].astype("i8"), now_ns)
        self.stalled = len(evs) < len(slots)
        slots = slots[: len(evs)]
        if self.proven is not None:
            # What was lost more than once goes where a probe has just got through.
            evs = np.where(window.times[slots] > 1, self.proven, evs)
            self.proven = None
        rows: Rows = window.rows[slots]
        rows["dscp"] = int(Dscp.TRIMMABLE_RETRANSMIT)
        rows["flags"] |= int(Flag.RTX)
        self._put(rows, slots, evs, now_ns)
        window.times[slots] += 1
        self._lost = self._lost[len(rows) :]
        self.counters.mrc_retransmits += len(rows)
        return rows

    def _emit_new(self, now_ns: int, most: int) -> Rows:
        window = self._window
        rows = self._queue.rows(window.next, most)
        rows = rows[: self._fitting(rows["length"])]
        if not len(rows):
            return rows
        evs = self._evs.take(len(rows), now_ns)
        self.stalled = len(evs) < len(rows)
        rows = rows[: len(evs)]
        slots = window.slots(window.next, window.next + len(rows))
        window.payload += self._put(rows, slots, evs, now_ns)
        window.times[slots] = 1
        window.next += len(rows)
        self._queue.sent_to(window.next)
        return rows

    def _fitting(self, lengths: npt.NDArray[np.uint32]) -> int:
        """How many packets of these lengths the window lets out; one at least where nothing is in flight at all."""
        room = self._destination.room()
        if len(lengths) * self._settings.pmtu <= room:
            return len(lengths)
        count = int(np.add.accumulate(lengths, dtype="i8").searchsorted(room, "right"))
        return count or int(self.urgent or self._destination.in_flight == 0)

    def _put(self, rows: Rows, slots: Indices, evs: npt.NDArray[np.int64], now_ns: int) -> int:
        """Note that these packets go out; their payload bytes."""
        rows["path"] = evs
        rows["stamp"] = self.stamp(now_ns)
        nbytes = int(np.add.reduce(rows["length"], dtype="i8"))
        self._window.sent(rows, slots, now_ns, nbytes)
        self._destination.sent(nbytes)
        self.counters.mrc_tx_bytes += nbytes
        return nbytes

    def stamp(self, now_ns: int) -> int:
        """Time stamp of what is sent now."""
        return (now_ns // self._settings.stamp_ns) & 0xFFFF

    def lose(self, psn: Indices) -> Indices:
        """These PSNs, in flight until now, are to be sent again; their slots."""
        slots = psn & self._window.mask
        self._destination.gone(self._window.lost(slots))
        self._lost = np.union1d(self._lost, psn) if len(self._lost) else psn
        return slots

    def hold(self, psn: Indices, due_ns: int) -> None:
        """These PSNs, in flight until now, were refused for want of resources: to be sent again, but not at once."""
        self._destination.gone(self._window.lost(psn & self._window.mask, HELD))
        self._held += [(due_ns, one) for one in psn.tolist()]

    def release(self, now_ns: int) -> None:
        """What was refused for want of resources may be sent again, if it is time."""
        if not self._held or self._held[0][0] > now_ns:
            return
        due = [psn for at, psn in self._held if at <= now_ns]
        self._held = [(at, psn) for at, psn in self._held if at > now_ns]
        psn = np.unique(np.array(due, "i8"))
        psn = psn[psn >= self._window.una]
        psn = psn[self._window.state[psn & self._window.mask] == HELD]
        self._window.state[psn & self._window.mask] = LOST
        self._lost = np.union1d(self._lost, psn)

    def arrived(self) -> None:
        """Packets were acknowledged: those among the lost ones need not be sent again."""
        if len(self._lost):
            self._lost = self._lost[self._window.state[self._lost & self._window.mask] == LOST]

    def stop(self) -> None:
        """Nothing is sent any more, and nothing is in flight."""
        window = self._window
        self._destination.gone(window.in_flight)
        window.in_flight = 0
        window.una = window.next
        self._lost = _NO_PSNS
        self._held.clear()
