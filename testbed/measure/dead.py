"""Loss against dead windows: were exactly the packets lost that were sent on dead EVs while they were dead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from testbed.errors import UsageError
from testbed.measure.arrays import I64, Bool
from testbed.measure.definitions import Report
from testbed.measure.streams import Level, Streams
from testbed.record import Figure


@dataclass(frozen=True, slots=True)
class DeadWindow:
    """When one EV of one flow was dead, in CLOCK_REALTIME ns.

    It died somewhere in ``[start_lo, start_hi]`` and came back somewhere in ``[end_lo, end_hi]``: a packet
    sent in either may share either fate. ``end_lo = end_hi = NEVER`` for one that never came back.
    """

    flow: int
    ev: int
    start_lo: int
    start_hi: int
    end_lo: int
    end_hi: int


#: The end of a dead window that did not end: later than any stamp.
NEVER = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class EvLoss:
    """One EV's packets against its dead windows.

    A packet sent just before an edge may reach the dead hop just after it, so at each edge one packet next
    to it may share the fate of the other side: it is ``excused``.

    Attributes:
        name: ``flow h0>h5 ev 0x0013``.
        plane: the plane of its first packet.
        windows: how many dead windows it had.
        sent: packets offered.
        sent_within: offered while it was surely dead.
        lost_within: of these, lost.
        sent_on_edges: offered while it may have been dead.
        lost_on_edges: of these, lost.
        lost_outside: lost though offered while it was surely alive.
        excused: packets next to an edge with the fate of its other side, at most one per edge.
    """

    name: str
    plane: int
    windows: int
    sent: int
    sent_within: int
    lost_within: int
    sent_on_edges: int
    lost_on_edges: int
    lost_outside: int
    excused: int

    @property
    def delivered_within(self) -> int:
        """Packets delivered though offered while the EV was surely dead."""
        return self.sent_within - self.lost_within

    @property
    def contradictions(self) -> int:
        """Packets whose fate the dead windows do not explain, the excused ones taken off."""
        return self.delivered_within + self.lost_outside - self.excused


@dataclass(frozen=True)
class DeadWindowLoss:
    """All EVs that packets were sent on, dead ones and survivors."""

    evs: tuple[EvLoss, ...]

    @property
    def explained(self) -> bool:
        """Whether loss equals the packets sent on dead EVs while dead, within one packet per EV and edge."""
        return not self.contradicting()

    def contradicting(self) -> tuple[EvLoss, ...]:
        """The EVs with packets that the dead windows do not explain, worst first."""
        return tuple(sorted((e for e in self.evs if e.contradictions), key=lambda e: -e.contradictions))

    def figure(self, report: Report) -> Figure:
        """Packets lost that no dead window explains."""
        outside = sum(ev.lost_outside - min(ev.excused, ev.lost_outside) for ev in self.evs)
        return report.figure("lost_outside_faults", outside, sum(ev.sent for ev in self.evs), "all")

    def lost_on_survivors(self, plane: int | None = None) -> int:
        """Packets lost on EVs that were never dead, on one plane or on all."""
        return sum(e.lost_outside for e in self.evs if not e.windows and plane in (None, e.plane))


def lost_in_windows(streams: Streams, windows: Iterable[DeadWindow]) -> DeadWindowLoss:
    """Compare each EV's losses with its dead windows.

    Args:
        streams: the streams of :attr:`Level.EV`.
        windows: any number per EV; those that overlap count as one.

    Raises:
        UsageError: stamps of a window out of order, or a window of an EV that no packet was sent on.
    """
    if streams.level is not Level.EV:
        raise UsageError("dead windows are compared per EV", found=f"streams per {streams.level}", expected="per ev")
    matched = streams.matched
    t_sent, lost = streams.in_order(matched.t_sent), streams.in_order(matched.lost)
    plane = streams.in_order(matched.plane)
    by_stream = _assign(streams, windows)
    out = []
    for stream in range(streams.count):
        own = slice(int(streams.starts[stream]), int(streams.starts[stream + 1]))
        dead = by_stream.get(stream, [])
        out.append(_compare(streams.name(stream), int(plane[own.start]), t_sent[own], lost[own], dead))
    return DeadWindowLoss(tuple(out))


def _assign(streams: Streams, windows: Iterable[DeadWindow]) -> dict[int, list[DeadWindow]]:
    """The windows of each stream, in order of time."""
    number = {(int(f), int(k)): i for i, (f, k) in enumerate(zip(streams.flow, streams.key, strict=True))}
    out: dict[int, list[DeadWindow]] = {}
    for window in windows:
        if not window.start_lo <= window.start_hi <= window.end_lo <= window.end_hi:
            raise UsageError(
                "a dead window's stamps are out of order",
                where=f"flow {window.flow} ev 0x{window.ev:04x}",
                found=f"{window.start_lo}, {window.start_hi}, {window.end_lo}, {window.end_hi}",
                expected="start_lo <= start_hi <= end_lo <= end_hi",
            )
        if (window.flow, window.ev) not in number:
            raise UsageError(
                "a dead window of an EV that no packet was sent on",
                found=f"flow {window.flow} ev 0x{window.ev:04x}",
                expected="an EV the flow was sprayed over",
            )
        out.setdefault(number[window.flow, window.ev], []).append(window)
    return {stream: _apart(own) for stream, own in out.items()}


def _apart(windows: list[DeadWindow]) -> list[DeadWindow]:
    """The windows of one EV in order of time, none touching the next."""
    out: list[DeadWindow] = []
    for window in sorted(windows, key=lambda w: (w.start_lo, w.start_hi)):
        if not out or window.start_lo > out[-1].end_hi:
            out.append(window)
        elif window.start_hi <= out[-1].end_lo:
            out[-1] = _union(out[-1], window)
        else:
            # Alive in between, or not: each gets its share of the time in which that is uncertain.
            before = replace(out[-1], end_hi=min(out[-1].end_hi, window.start_hi - 1))
            after = replace(window, start_lo=before.end_hi + 1, end_hi=max(window.end_hi, out[-1].end_hi))
            out[-1:] = [before, after]
    return out


def _union(first: DeadWindow, second: DeadWindow) -> DeadWindow:
    """Two windows that surely overlap, as one."""
    return DeadWindow(
        first.flow,
        first.ev,
        min(first.start_lo, second.start_lo),
        min(first.start_hi, second.start_hi),
        max(first.end_lo, second.end_lo),
        max(first.end_hi, second.end_hi),
    )


def _compare(name: str, plane: int, t_sent: I64, lost: Bool, windows: list[DeadWindow]) -> EvLoss:
    if bool((t_sent[1:] < t_sent[:-1]).any()):
        order = np.argsort(t_sent, kind="stable")
        t_sent, lost = t_sent[order], lost[order]
    within = np.zeros(t_sent.size, dtype=np.bool_)
    maybe = np.zeros(t_sent.size, dtype=np.bool_)
    edges: list[tuple[int, int]] = []
    for w in windows:
        # [a, b) may be dead, [b, c) is, [c, d) may be.
        a, b = int(np.searchsorted(t_sent, w.start_lo)), int(np.searchsorted(t_sent, w.start_hi))
        c, d = (int(np.searchsorted(t_sent, t, side="right")) for t in (w.end_lo, w.end_hi))
        maybe[a:d] = True
        maybe[b:c] = False
        within[b:c] = True
        edges += [(a - 1, b), (c - 1, d)]
    surprise = (within & ~lost) | (lost & ~within & ~maybe)
    excused: set[int] = set()
    for beside in edges:
        # Either neighbour of an edge, but not both: the edge lies before one of them or after the other.
        near = [i for i in beside if 0 <= i < t_sent.size and surprise[i] and i not in excused]
        excused.update(near[:1])
    return EvLoss(
        name=name,
        plane=plane,
        windows=len(windows),
        sent=int(t_sent.size),
        sent_within=int(within.sum()),
        lost_within=int((within & lost).sum()),
        sent_on_edges=int(maybe.sum()),
        lost_on_edges=int((maybe & lost).sum()),
        lost_outside=int((lost & ~within & ~maybe).sum()),
        excused=len(excused),
    )
