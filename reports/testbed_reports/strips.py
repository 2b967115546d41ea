"""Strips of a drawing over time: packets delivered as a staircase, the least and most of merged windows as a band.

Packets lost are bars that hang from the top. Units of x are drawn windows, units of y are pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from testbed.measure.series import Counts, TimelineRecord
from testbed_reports.svg import el, number


@dataclass(frozen=True)
class Strip:
    """One strip: the packets of a plane or of a flow per drawn window."""

    label: str
    delivered: Counts
    least: Counts
    most: Counts
    lost: Counts


def draw_strip(
    strip: Strip, series: TimelineRecord, base: float, room: float, full: float, most_lost: int
) -> Iterator[Markup]:
    """One strip, standing on ``base`` and ``room`` high; ``full`` packets per sampling window reach its top."""
    heights = [_height(value, full, room) for value in per_window(strip.delivered, series)]
    line = _steps(heights, base)
    yield el("path", d=f"{line}V{number(base)}H0z", class_="area")
    if series.merged > 1:
        high = [_height(value, full, room) for value in strip.most]
        low = [_height(value, full, room) for value in strip.least]
        yield el("path", d=_band(low, high, base), class_="range")
    yield el("path", d=line, class_="rate", vector_effect="non-scaling-stroke")
    bars = _bars(strip.lost, base - room, room, most_lost)
    if bars:
        yield el("path", d=bars, class_="lost", vector_effect="non-scaling-stroke")


def full_scale(strips: Sequence[Strip], series: TimelineRecord) -> float:
    """What the top of the strips stands for, in packets per sampling window."""
    if series.merged > 1:
        return float(max((max(strip.most) for strip in strips), default=0))
    return max((value for strip in strips for value in per_window(strip.delivered, series)), default=0.0)


def per_window(values: Counts, series: TimelineRecord) -> Iterator[float]:
    """Counts per sampling window; the last drawn window may hold fewer."""
    last = len(values) - 1
    for position, value in enumerate(values):
        yield value / (series.last_merged if position == last else series.merged)


def _height(value: float, full: float, room: float) -> int:
    return round(value / full * (room - 2)) if full else 0


def _steps(heights: Sequence[int], base: float) -> str:
    """A staircase; equal neighbours are one step."""
    parts = [f"M0 {number(base - heights[0])}"]
    before = heights[0]
    for height, run in groupby(heights):
        if height != before:
            parts.append(f"v{before - height}")
        parts.append(f"h{sum(1 for _ in run)}")
        before = height
    return "".join(parts)


def _band(low: Sequence[int], high: Sequence[int], base: float) -> str:
    """The area between two staircases: forwards along the upper, back along the lower."""
    parts, before = [_steps(high, base), f"V{number(base - low[-1])}"], low[-1]
    for height, run in groupby(reversed(low)):
        if height != before:
            parts.append(f"v{before - height}")
        parts.append(f"h-{sum(1 for _ in run)}")
        before = height
    return "".join(parts) + "z"


def _bars(lost: Counts, top: float, room: float, most: int) -> str:
    """A bar hanging from the strip's top for each window that lost packets; never too short to see."""
    parts = []
    for position, packets in enumerate(lost):
        if packets:
            height = max(round(packets / most * (room * 0.6)), 7)
            parts.append(f"M{position}.5 {number(top)}v{height}")
    return "".join(parts)
