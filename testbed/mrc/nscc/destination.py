"""The sender's side of NSCC: one window for each destination, in payload bytes, clocked by SACKs."""

from __future__ import annotations

from testbed.mrc.nscc.back_pressure import MOST
from testbed.mrc.settings import NsccSettings

#: The average delay is that of about one base RTT, and never of fewer samples than this (ours).
_FEWEST_SAMPLES = 8
#: A round trip of quick adapt that ends late, by want of a SACK, is taken for so many at most (ours).
_LATEST = 2.0


class Destination:
    """One peer's window, shared by the queue pairs to it (UEC 1.0 section 3.6.13).

    With every SACK, by its ECN mark and the delay of the packet it answers:

    * no mark, delay below the target: proportional increase, by how far it is below. When a whole window has met no
      delay at all: fast increase instead, at once, by a share of what was acknowledged.
    * no mark, delay high: the queue is draining: fair increase, the same for small and large windows.
    * mark, delay high: multiplicative decrease by the average excess, at most once per base RTT.
    * mark, delay below the target: one path is busy; the EVs move, the window holds (``eta`` alone goes on).

    Increases are added up and applied per ``adjust_bytes`` or ``adjust_period_ns``, divided by the window. Quick adapt:
    after a trim, or at a delay near what overflows a queue, the window becomes what was delivered in the last round
    trip, and marks of what was then in flight are ignored.

    Delay is the round trip less the base, which starts at unloaded_rtt and falls to the smallest sample, as published.
    Chosen where the publication leaves it open or does not fit software:

    * max_cwnd does not shrink with the measured base (published: 1.5 rates times base): software's smallest round trip
      is far below its usual one. For the same reason averages and decreases are paced by the configured base.
    * The average weighs a sample by the time since the one before, at most 1/8: a burst of late SACKs after the
      scheduler kept a process waiting counts as one event. Quick adapt looks at that average, not at one sample.
    * Quick adapt judges a round trip at the first SACK after its end, and takes what was delivered in proportion if
      that is late: SACKs of several senders come in clumps.
    * A receiver's penalty p withholds p/128 of what a SACK acknowledges (127: all of it) from the window or, where
      less is in flight, from that; nothing grows meanwhile, ``eta`` neither. Penalty 0 with restore_cwnd brings
      back the window of before; without it that is forgotten.
    * A timeout halves (max_md_jump), at most once per base RTT, only while the destination is silent: a queue pair
      that waits for one answer says nothing of a path that carries others'.

    Sizes are bytes of payload, times nanoseconds of one monotonic clock. Tell :meth:`gone` before :meth:`on_ack`.
    """

    __slots__ = (
        "_achieved",
        "_adjusted_ns",
        "_average",
        "_averaged_ns",
        "_base_rtt",
        "_clear_bytes",
        "_cwnd",
        "_decreased_ns",
        "_fast",
        "_heard_ns",
        "_ignored",
        "_increase",
        "_qa_start_ns",
        "_qa_wanted",
        "_received",
        "_saved",
        "_settings",
        "_to_ignore",
        "in_flight",
        "share",
    )

    def __init__(self, settings: NsccSettings) -> None:
        self._settings = settings
        #: Bytes sent and neither acknowledged nor lost.
        self.in_flight = 0
        #: Of the planes that max_cwnd was made for, those that are up: so much of it their queues hold.
        self.share = 1.0
        self._cwnd = float(settings.initial_cwnd)
        self._base_rtt = settings.unloaded_rtt_ns
        self._average: float | None = None
        self._averaged_ns = 0
        self._increase = 0.0
        self._received = 0
        self._adjusted_ns: int | None = None
        self._decreased_ns: int | None = None
        self._heard_ns: int | None = None
        self._clear_bytes = 0
        self._fast = False
        self._achieved = 0
        self._qa_start_ns: int | None = None
        self._qa_wanted = False
        self._to_ignore = 0
        self._ignored = 0
        self._saved: float | None = None

    @property
    def base_rtt_ns(self) -> int:
        """What delay is counted from: unloaded_rtt, or the smallest sample if that is less."""
        return self._base_rtt

    @property
    def average_delay_ns(self) -> float:
        """Queueing delay over about the last base RTT; 0 before the first sample."""
        return self._average or 0.0

    def window(self) -> int:
        """Bytes that may be in flight now."""
        return int(self._cwnd)

    def room(self) -> int:
        """Bytes that may be sent now."""
        most = max(self.share * self._settings.max_cwnd, self._settings.min_cwnd)
        return max(0, int(min(self._cwnd, most)) - self.in_flight)

    def sent(self, count: int) -> None:
        """So many bytes were sent, for the first time or again."""
        self.in_flight += count

    def gone(self, count: int) -> None:
        """So many bytes are in flight no longer: acknowledged, trimmed or lost."""
        self.in_flight = max(0, self.in_flight - count)

    def on_ack(
        self, now_ns: int, acked_bytes: int, rtt_ns: int | None, ecn: bool, rcv_cwnd_pen: int, restore_cwnd: bool
    ) -> None:
        """A SACK arrived.

        Args:
            now_ns: the time of its arrival.
            acked_bytes: bytes that it is the first to acknowledge; may be 0.
            rtt_ns: round trip of the packet that it answers; None where that is not known: the window stays.
            ecn: that packet was marked.
            rcv_cwnd_pen: the receiver's penalty, 0 to 127.
            restore_cwnd: when the penalty ends, the window of before returns.
        """
        self._heard_ns = now_ns
        self._ignored += acked_bytes
        self._received += acked_bytes
        self._achieved += acked_bytes
        self._apply_penalty(rcv_cwnd_pen, restore_cwnd, acked_bytes)
        if rtt_ns is None:
            return
        rtt = max(rtt_ns, 0)
        self._base_rtt = min(self._base_rtt, rtt)
        delay = rtt - self._base_rtt
        self._average_in(now_ns, delay)
        if self._adapt_quickly(now_ns, ecn):
            return
        target = self._settings.target_delay_ns
        if ecn:
            if delay >= target:
                self._decrease(now_ns)
        elif rcv_cwnd_pen == 0:
            if delay >= target:
                self._increase += self._settings.fi * acked_bytes
            elif not self._increase_fast(acked_bytes, delay):
                self._increase += self._settings.alpha * acked_bytes * (target - delay)
        if rcv_cwnd_pen == 0:
            self._adjust(now_ns)

    def on_trim(self, now_ns: int, count: int) -> None:
        """A NACK says that so many bytes were trimmed, in the fabric or at its last hop: a queue was full."""
        self._heard_ns = now_ns
        self._average_in(now_ns, self._settings.base_rtt_ns)
        self._qa_wanted = True
        self._ignored += count
        if not self._adapt_quickly(now_ns, ecn=True):
            self._bound(self._cwnd - count)

    def on_loss(self, count: int) -> None:
        """So many bytes were inferred lost, untrimmed: the window gives up as many."""
        self._ignored += count
        self._bound(self._cwnd - count)

    def on_timeout(self, now_ns: int) -> None:
        """The acknowledgement timer of one of the queue pairs expired."""
        silence = self._base_rtt + self._settings.target_delay_ns
        silent = self._heard_ns is None or now_ns - self._heard_ns > silence
        if silent and self._may_decrease(now_ns):
            self._cut(now_ns, self._settings.max_md_jump)

    def _apply_penalty(self, penalty: int, restore: bool, acked: int) -> None:
        if penalty > 0:
            if self._saved is None:
                self._saved = self._cwnd
            withheld = acked if penalty >= MOST else penalty * acked / 128
            self._bound(min(self._cwnd, self.in_flight + acked) - withheld)
        elif self._saved is not None:
            if restore:
                self._bound(self._saved)
            self._saved = None

    def _average_in(self, now_ns: int, delay: float) -> None:
        if self._average is None:
            self._average = float(delay)
        else:
            weight = min((now_ns - self._averaged_ns) / self._settings.base_rtt_ns, 1 / _FEWEST_SAMPLES)
            self._average += max(weight, 0.0) * (delay - self._average)
        self._averaged_ns = now_ns

    def _adapt_quickly(self, now_ns: int, ecn: bool) -> bool:
        """Quick adapt; True where it, rather than the four cases, dealt with this event."""
        knobs = self._settings
        if not knobs.quick_adapt:
            return False
        done = False
        if ecn and self._ignored < self._to_ignore:
            done = True
        elif self._qa_start_ns is None or now_ns - self._qa_start_ns >= self._base_rtt + knobs.target_delay_ns:
            called = self._qa_wanted or self.average_delay_ns > knobs.qa_threshold_ns
            if self._qa_start_ns is not None and called and self._achieved < knobs.max_cwnd >> knobs.qa_gate:
                period = self._base_rtt + knobs.target_delay_ns
                late = min((now_ns - self._qa_start_ns) / period, _LATEST)
                self._bound(min(self._cwnd, self._achieved / late))
                self._to_ignore = self.in_flight
                self._ignored = 0
                self._qa_wanted = False
                done = True
            self._achieved = 0
            self._qa_start_ns = now_ns
        if done:
            self._increase = 0.0
            self._received = 0
        return done

    def _increase_fast(self, acked: int, delay: int) -> bool:
        if delay >= self._settings.clear_delay_ns:
            self._clear_bytes = 0
            self._fast = False
            return False
        self._clear_bytes += acked
        if self._clear_bytes > self._cwnd:
            self._fast = True
        if self._fast:
            self._bound(self._cwnd + self._settings.fi_scale * acked)
        return self._fast

    def _decrease(self, now_ns: int) -> None:
        self._fast = False
        self._clear_bytes = 0
        average, knobs = self.average_delay_ns, self._settings
        if average > knobs.target_delay_ns and self._may_decrease(now_ns):
            share = 1 - knobs.gamma * (average - knobs.target_delay_ns) / average
            self._cut(now_ns, max(share, knobs.max_md_jump))

    def _may_decrease(self, now_ns: int) -> bool:
        return self._decreased_ns is None or now_ns - self._decreased_ns > self._settings.base_rtt_ns

    def _cut(self, now_ns: int, share: float) -> None:
        self._bound(self._cwnd * share)
        self._decreased_ns = now_ns

    def _adjust(self, now_ns: int) -> None:
        knobs = self._settings
        if self._adjusted_ns is None:
            self._adjusted_ns = now_ns
        due = now_ns - self._adjusted_ns >= knobs.adjust_period_ns
        if not due and self._received <= knobs.adjust_bytes:
            return
        grown = self._cwnd + self._increase / self._cwnd
        if due:
            grown += knobs.eta
            self._adjusted_ns = now_ns
        self._bound(grown)
        self._increase = 0.0
        self._received = 0

    def _bound(self, cwnd: float) -> None:
        self._cwnd = float(min(max(cwnd, self._settings.min_cwnd), self._settings.max_cwnd))
