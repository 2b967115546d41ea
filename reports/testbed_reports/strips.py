"""Strips of a drawing over time: packets delivered as a staircase, the least and most of merged windows as a band.

Packets lost are bars that hang from the top, packets reordered are bars that stand below. Units of x are drawn windows,
units of y are pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from testbed.measure.series import Counts, TimelineRecord
from testbed_reports.svg import el, number

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Strip:
    """One strip: the packets of a plane or of a flow per drawn window; ``late``: reordered, where that is known."""

    label: str
    delivered: Counts
    least: Counts
    most: Counts
    lost: Counts
    late: Counts = ()


def draw_strip(
    strip: Strip, series: TimelineRecord, base: float, room: float, full: float, most_lost: int, most_late: int
) -> Iterator[Markup]:
    """One strip, standing on ``base`` and ``room`` high; ``full`` packets per sampling window reach its top."""
    heights = _heights(per_window(strip.delivered, series), full, room)
    line = _steps(heights, base)
    yield el("path", d=f"{line}V{number(base)}H0z", class_="area")
    if series.merged > 1:
        high, low = (_heights(np.asarray(values), full, room) for values in (strip.most, strip.least))
        yield el("path", d=_band(low, high, base), class_="range")
    yield el("path", d=line, class_="rate", vector_effect="non-scaling-stroke")
    late = _bars(strip.late, base, -room * 0.3, most_late, least=3)
    if late:
        yield el("path", d=late, class_="late", vector_effect="non-scaling-stroke")
    lost = _bars(strip.lost, base - room, room * 0.6, most_lost, least=7)
    if lost:
        yield el("path", d=lost, class_="lost", vector_effect="non-scaling-stroke")


def full_scale(strips: Sequence[Strip], series: TimelineRecord) -> float:
    """What the top of the strips stands for, in packets per sampling window."""
    if series.merged > 1:
        return float(max((max(strip.most) for strip in strips), default=0))
    return max((float(per_window(strip.delivered, series).max()) for strip in strips), default=0.0)


def per_window(values: Counts, series: TimelineRecord) -> F64:
    """Counts per sampling window; the last drawn window may hold fewer."""
    out = np.asarray(values) / series.merged
    out[-1] = values[-1] / series.last_merged
    return out


def _heights(values: npt.NDArray[Any], full: float, room: float) -> list[int]:
    """Whole pixels."""
    return np.rint(values / full * (room - 2)).astype(int).tolist() if full else [0] * len(values)


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


def _bars(packets: Counts, start: float, room: float, most: int, least: int) -> str:
    """A bar from ``start`` for each window that has any, down or (``room`` below 0) up; never too short to see."""
    found = np.flatnonzero(np.asarray(packets))
    if not found.size:
        return ""
    tall = np.maximum(np.rint(np.asarray(packets)[found] / most * abs(room)).astype(int), least)
    sign = "-" if room < 0 else ""
    return "".join(
        f"M{at}.5 {number(start)}v{sign}{height}" for at, height in zip(found.tolist(), tall.tolist(), strict=True)
    )
