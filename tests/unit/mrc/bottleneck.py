"""Senders through one queue, packet by packet and without chance: what a window does to a link."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

from testbed.mrc.nscc import Destination
from testbed.mrc.settings import NsccSettings

PACKET = 4096
SACK_PACKETS = 16
MS = 1_000_000


@dataclass
class Sender:
    nscc: Destination
    stops_ns: int | None = None
    delivered: int = 0
    lost: int = 0
    unacknowledged: int = 0


@dataclass
class Bottleneck:
    """A link of ``rate`` bytes/s with a tail-drop queue, ``base_ns`` of round trip beside it, and ``stalls``.

    Sizes are payload. ``mark_ns``: a packet that waited so long is marked. ``stalls``: (from, until) in which the
    senders' process does not run, so that SACKs wait.
    """

    base_ns: int
    rate: float
    limit: float = float("inf")
    mark_ns: float = float("inf")
    changes: list[tuple[int, float]] = field(default_factory=list)
    stalls: list[tuple[int, int]] = field(default_factory=list)
    senders: list[Sender] = field(default_factory=list)
    sojourns: list[tuple[int, float]] = field(default_factory=list)
    free_ns: float = 0.0
    events: list[tuple[float, int, int, int, bool, float | None]] = field(default_factory=list)
    serial: int = 0

    def add(self, settings: NsccSettings, starts_ns: int = 0, stops_ns: int | None = None) -> Sender:
        self.senders.append(Sender(Destination(settings), stops_ns))
        self._at(starts_ns, len(self.senders) - 1, 0, False, None)
        return self.senders[-1]

    def run(self, until_ns: int) -> None:
        """Goes on to ``until_ns``."""
        while self.events and self.events[0][0] <= until_ns:
            now, _, who, count, marked, sent = heappop(self.events)
            self._change_rate(now)
            nscc = self.senders[who].nscc
            if sent is not None:
                self.senders[who].delivered += count
                nscc.gone(count)
                nscc.on_ack(int(now), count, int(now - sent), marked, 0, False)
            elif count:
                nscc.gone(count)
                nscc.on_loss(count)
            self._send(now, who)

    def _at(self, when: float, who: int, count: int, marked: bool, sent: float | None) -> None:
        """An event: a SACK of ``count`` bytes for a packet ``sent`` then; without that, so many bytes lost."""
        for start, end in self.stalls:
            if start <= when < end:
                when = end
        self.serial += 1
        heappush(self.events, (when, self.serial, who, count, marked, sent))

    def _change_rate(self, now: float) -> None:
        while self.changes and self.changes[0][0] <= now:
            _, rate = self.changes.pop(0)
            self.free_ns = now + max(self.free_ns - now, 0.0) * self.rate / rate
            self.rate = rate

    def _send(self, now: float, who: int) -> None:
        sender = self.senders[who]
        if sender.stops_ns is not None and now >= sender.stops_ns:
            return
        while (room := sender.nscc.room()) >= PACKET:
            sender.nscc.sent(PACKET)
            wait = max(self.free_ns - now, 0.0)
            if wait * 1e-9 * self.rate + PACKET > self.limit:
                sender.lost += PACKET
                self._at(now + wait + self.base_ns, who, PACKET, False, None)
                continue
            self.free_ns = now + wait + PACKET / self.rate * 1e9
            self.sojourns.append((int(now), wait))
            sender.unacknowledged += 1
            # The last packet that the window lets through asks for its SACK (BTH.a).
            if sender.unacknowledged >= SACK_PACKETS or room < 2 * PACKET:
                count, sender.unacknowledged = sender.unacknowledged * PACKET, 0
                self._at(self.free_ns + self.base_ns, who, count, wait >= self.mark_ns, now)

    def mean_sojourn(self, since_ns: int) -> float:
        waits = [wait for when, wait in self.sojourns if when >= since_ns]
        return sum(waits) / len(waits)
