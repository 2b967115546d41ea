"""Blocked time from loss, outage from gaps, and whether the two agree (RFC 6413, RFC 6201).

A gap that the stream's start or end cuts counts up to where the missing packets would have arrived: a path
that dies for good is an outage until the end, not the absence of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.measure.arrays import I64, Bool, longest_step, segment_max, segment_min, sort_segments
from testbed.measure.definitions import Report
from testbed.measure.streams import Scope, Streams
from testbed.record import Figure

F64 = npt.NDArray[np.float64]

#: The two methods agree within this, or within two sending intervals where those are longer.
TOLERANCE_NS = 10_000_000


#: A pause between two packets longer than so many sending intervals is the sender's, not its schedule's.
_PACED_INTERVALS = 2.5


@dataclass(frozen=True)
class Outages:
    """Both methods' raw material per stream; every array has shape (streams,).

    Attributes:
        streams: what they are of.
        sent: packets offered.
        lost: packets lost.
        first_ns: when the first packet was offered.
        last_ns: when the last packet was offered.
        interval_ns: mean sending interval; NaN for fewer than two packets or no time between them.
        pause_ns: longest time between two sendings.
        outage_ns: longest gap between arrivals minus the interval, not below 0; NaN as above.
        cut: True where that gap runs into the stream's first or last packet, and so may be longer.
    """

    streams: Streams
    sent: I64
    lost: I64
    first_ns: I64
    last_ns: I64
    interval_ns: F64
    pause_ns: I64
    outage_ns: F64
    cut: Bool

    def blocked_ns(self, own: I64) -> float | None:
        """Lost packets of some streams over the rate they were offered at together; None without a rate."""
        interval = self.pooled_interval_ns(own)
        return None if interval is None else int(self.lost[own].sum()) * interval

    def pooled_interval_ns(self, own: I64) -> float | None:
        """Mean time between two packets of some streams together; None without two packets apart in time."""
        own = own[self.sent[own] > 0]
        sent = int(self.sent[own].sum())
        if sent < 2:
            return None
        span = int(self.last_ns[own].max()) - int(self.first_ns[own].min())
        return span / (sent - 1) if span > 0 else None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Loss-derived against gap-derived outage of one stream, in seconds.

    ``paced``: the stream's packets were offered at the constant rate that both methods rest on: no pause between two
    was longer than 2.5 sending intervals (EVs visited in random order once per round are up to 2 apart).
    """

    stream: str
    blocked_s: float
    outage_s: float
    tolerance_s: float
    paced: bool

    @property
    def difference_s(self) -> float:
        """How far the two are apart."""
        return abs(self.blocked_s - self.outage_s)

    @property
    def agrees(self) -> bool:
        """Whether they are within max(10 ms, two sending intervals) of each other."""
        return self.difference_s <= self.tolerance_s


def outages(streams: Streams) -> Outages:
    """Find each stream's rate, losses and longest gap between arrivals."""
    matched, starts = streams.matched, streams.starts
    t_sent = sort_segments(streams.in_order(matched.t_sent), starts)
    sent = np.diff(starts)
    first, last = segment_min(t_sent, starts, 0), segment_max(t_sent, starts, 0)
    interval = np.full(streams.count, np.nan)
    rated = (sent > 1) & (last > first)
    interval[rated] = (last[rated] - first[rated]) / (sent[rated] - 1)

    came = streams.arrived_starts
    arrived_at = matched.t_arrived[streams.arrived]
    fastest = segment_min(arrived_at - matched.t_sent[streams.arrived], came, 0)
    arrived_at = sort_segments(arrived_at, came)
    nothing = np.diff(came) == 0
    inner = longest_step(arrived_at, came)
    # An arrival one interval before the first packet's and one after the last's bound the cut gaps.
    # The stamps cancel as integers first: as floats they are only good to 256 ns.
    head = (segment_min(arrived_at, came, 0) - first - fastest) + interval
    tail = (last + fastest - segment_max(arrived_at, came, 0)) + interval
    gap = np.maximum(np.maximum(inner, head), tail)
    lost = streams.in_order(matched.lost)
    edge = np.minimum(starts[:-1], max(lost.size - 1, 0))
    lost_first = lost[edge] if lost.size else np.zeros(streams.count, dtype=np.bool_)
    lost_last = lost[np.maximum(starts[1:] - 1, 0)] if lost.size else lost_first
    return Outages(
        streams=streams,
        sent=sent,
        lost=streams.per_stream(np.flatnonzero(matched.lost)),
        first_ns=first,
        last_ns=last,
        interval_ns=interval,
        pause_ns=longest_step(t_sent, starts),
        outage_ns=np.where(nothing, last - first + interval, np.maximum(gap - interval, 0)),
        cut=nothing | (lost_first & (gap <= head)) | (lost_last & (gap <= tail)),
    )


def agreement(found: Outages, stream: int) -> Agreement | None:
    """Compare the two methods on one stream; None where it has no rate."""
    blocked = found.blocked_ns(np.array([stream]))
    if blocked is None:
        return None
    return Agreement(
        stream=found.streams.name(stream),
        blocked_s=blocked * 1e-9,
        outage_s=float(found.outage_ns[stream]) * 1e-9,
        tolerance_s=_tolerance_ns(found, stream) * 1e-9,
        paced=bool(found.pause_ns[stream] <= _PACED_INTERVALS * found.interval_ns[stream]),
    )


def outage_figures(found: Outages, scope: Scope, report: Report) -> Iterator[Figure]:
    """Blocked time and outage of one scope; the outage is that of the stream with the longest."""
    own = scope.streams
    sent = int(found.sent[own].sum())
    interval, blocked = found.pooled_interval_ns(own), found.blocked_ns(own)
    if interval is None or blocked is None:
        yield report.figure("blocked_time", None, sent, scope.name, note="too few packets sent for a rate")
    else:
        note = f"offered at {1e9 / interval:.6g} packets/s"
        yield report.figure("blocked_time", blocked * 1e-9, sent, scope.name, resolution=interval * 1e-9, note=note)
    rated = own[~np.isnan(found.outage_ns[own])]
    if not rated.size:
        yield report.figure("outage", None, sent, scope.name, note="too few packets sent for a rate")
        return
    worst = int(rated[np.argmax(found.outage_ns[rated])])
    notes = [f"of {found.streams.name(worst)}"] if own.size > 1 else []
    if found.cut[worst]:
        notes.append("runs into the first or last packet")
    if found.pause_ns[worst] > found.interval_ns[worst] + _tolerance_ns(found, worst):
        notes.append(f"not a constant rate: the sender paused for {found.pause_ns[worst] * 1e-9:.6f} s")
    yield report.figure(
        "outage",
        float(found.outage_ns[worst]) * 1e-9,
        sent,
        scope.name,
        resolution=float(found.pause_ns[worst]) * 1e-9,
        note="; ".join(notes),
        at_least=bool(found.cut[worst]),
    )


def disagreement_figure(found: Outages, scope: Scope, report: Report) -> Figure:
    """The largest difference between both methods over the EV streams ``scope`` names."""
    compared = [a for a in (agreement(found, int(stream)) for stream in scope.streams) if a]
    name = "outage_disagreement"
    if not compared:
        return report.figure(name, None, 0, scope.name, note="no EV has enough packets for a rate")
    worst = max(compared, key=lambda a: (a.difference_s - a.tolerance_s, a.difference_s))
    disagreeing = sum(not a.agrees for a in compared)
    verdict = f"disagree on {disagreeing} of {len(compared)} EVs, most on" if disagreeing else "agree, least on"
    note = (
        f"{verdict} {worst.stream}: {worst.blocked_s:.6f} s from loss, {worst.outage_s:.6f} s from the gap, "
        f"tolerance {worst.tolerance_s:.6f} s"
    )
    return report.figure(name, worst.difference_s, len(compared), scope.name, resolution=worst.tolerance_s, note=note)


def _tolerance_ns(found: Outages, stream: int) -> float:
    return max(float(TOLERANCE_NS), 2 * float(found.interval_ns[stream]))
