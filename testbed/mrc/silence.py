"""What a requester does while it hears nothing: reliability probes after a while, and the ACK timer's retries."""

from __future__ import annotations

import numpy as np

from testbed.mrc import psn as psns
from testbed.mrc.acktimer import AckTimer
from testbed.mrc.evs import EvSet
from testbed.mrc.losses import RoundTrips
from testbed.mrc.nscc import Destination
from testbed.mrc.requestercounters import RequesterCounters
from testbed.mrc.rows import PROBE_OUT, Dscp, Rows
from testbed.mrc.sackreader import SackReader
from testbed.mrc.sender import Sender
from testbed.mrc.sendwindow import IN_FLIGHT, SendWindow
from testbed.mrc.settings import Settings

#: Probes sent at one expiry of the ACK timer, at most: each by another EV, and twice as many every time.
_MOST_PROBES = 16
#: The same before it expires.
_MOST_LOOKS = 4


class Silence:
    """Timers of one queue pair's requester.

    Args:
        qp: index of the local queue pair. dqp: number of the remote one.
        settings: the NIC's.
        window, sender, sacks, evs, destination, counters: the requester's.
    """

    def __init__(
        self,
        qp: int,
        dqp: int,
        settings: Settings,
        window: SendWindow,
        sender: Sender,
        sacks: SackReader,
        round_trips: RoundTrips,
        evs: EvSet,
        destination: Destination,
        counters: RequesterCounters,
    ) -> None:
        self._qp, self._dqp = qp, dqp
        self._window = window
        self._sender = sender
        self._sacks = sacks
        self._round_trips = round_trips
        self._evs = evs
        self._destination = destination
        self._counters = counters
        self._timer = AckTimer(settings)
        self._look_ns: int | None = None  # when silence calls for probes, before the ACK timer does
        self._looks = 0  # how often it has called in vain
        self._probe_id = 0

    def sent(self, now_ns: int) -> None:
        """Something is on its way."""
        self._timer.start(now_ns)
        self._look_after(now_ns)

    def stalled(self, now_ns: int) -> None:
        """The windows let nothing out: only time can tell whether they ever will."""
        self._timer.start(now_ns)

    def progress(self, now_ns: int) -> None:
        """Something was acknowledged by a transport ACK."""
        self._timer.progress(now_ns)

    def arrived(self, now_ns: int) -> None:
        """Packets are known to have arrived."""
        self._timer.progress(now_ns)
        self._look_after(now_ns)

    def answered(self, now_ns: int) -> None:
        """A probe was answered: the peer lives, and has said all it knows. What it waits for is the timer's to find."""
        self._timer.answered(now_ns)
        self._look_ns = None

    def path_back(self, now_ns: int) -> None:
        """A path that had failed carries packets again: where all is silent, a probe may be answered now."""
        if self._timer.due_ns is not None and self._timer.retries:
            self._looks = 0
            self._look_ns = now_ns

    def stop(self) -> None:
        """Nothing is unacknowledged."""
        self._timer.stop()
        self._look_ns = None

    def next_due_ns(self) -> int | None:
        """When :meth:`on_timer` next has something to do."""
        due = self._timer.due_ns
        if self._look_ns is not None and (due is None or self._look_ns < due):
            return self._look_ns
        return due

    def _look_after(self, now_ns: int) -> None:
        """Something was sent, or arrived: if nothing else does for a while, a probe is to find out why.

        By then a packet that is still missing is older than the probe by more than the reorder window, so that the
        answer proves its loss; without it the last packets before a pause would wait for the ACK timer.
        """
        self._looks = 0
        self._look_ns = now_ns + self._patience_ns()

    def _patience_ns(self) -> int:
        rtt_ns = self._round_trips.slowest_ns
        return rtt_ns + max(rtt_ns, int(self._round_trips.windows_ns.max()))

    def on_timer(self, now_ns: int, heard_ns: int) -> Rows | None:
        """Do what is due.

        Args:
            now_ns: now.
            heard_ns: when anything of the peer last came in.

        Returns:
            PROBE_OUT rows, whose ``path`` is an index of the EV set; None when all retries are used up.
        """
        if self._timer.due_ns is None or now_ns < self._timer.due_ns:
            if self._look_ns is None or now_ns < self._look_ns:
                return np.zeros(0, PROBE_OUT)
            # Its path, or that of the answer, may be dead, too: look again, by more paths.
            count = min(1 << self._looks, _MOST_LOOKS)
            self._looks += 1
            self._look_ns = now_ns + self._patience_ns()
            return self._probe(count, int(self._window.ev[self._window.una & self._window.mask]), now_ns)
        self._counters.local_ack_timeout_err += 1
        if not self._timer.expire(now_ns):
            return None
        self._destination.on_timeout(now_ns)
        window, retries = self._window, self._timer.retries
        oldest = window.una & window.mask
        avoid = int(window.ev[oldest])
        if window.una < window.next:
            if window.state[oldest] == IN_FLIGHT:
                # Where several are silent none is to blame: what an answer to the probes proves lost, says which.
                if heard_ns <= int(window.sent_ns[oldest]) and not window.flies_beside(avoid):
                    self._evs.on_timeout(np.array([avoid]), now_ns)
                if retries > 1:
                    self._counters.mrc_timeout_retransmits += 1
                    self._sender.lose(np.array([window.una]))
            self._sender.urgent = retries > 1
        return self._probe(min(1 << (retries - 1), _MOST_PROBES), avoid, now_ns)

    def _probe(self, count: int, avoid: int, now_ns: int) -> Rows:
        """One probe is on another EV than ``avoid``. Several are on every EV in turn, the retired ones included.

        Where nothing is heard at all, it may be the wrong ones that were taken for bad.
        """
        one = np.array([avoid])
        evs = self._evs.take_fresh(one, now_ns) if count == 1 else self._evs.survey(count)
        rows = np.zeros(len(evs), PROBE_OUT)
        if not len(evs):
            return rows
        rows["path"] = evs
        rows["qp"] = self._qp
        rows["dqp"] = self._dqp
        rows["psn"] = self._window.una & psns.MASK
        rows["dscp"] = Dscp.CONTROL
        rows["probe_id"] = (self._probe_id + np.arange(len(evs))) & 0xFFFF
        rows["stamp"] = self._sender.stamp(now_ns)
        self._probe_id += len(evs)
        self._sacks.probed(self._sender.stamp(now_ns), now_ns)
        self._counters.mrc_probes_sent += len(evs)
        return rows
