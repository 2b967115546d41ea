"""Distributions as a drawing: a row per scope, all on one logarithmic axis, with their median and 99th percentile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup

from testbed.measure.distributions import DistributionRecord
from testbed_reports.display import count, quantity
from testbed_reports.svg import el, number, text

WIDTH, LEFT, RIGHT = 1120.0, 74.0, 200.0
PLOT = WIDTH - LEFT - RIGHT
_ROW, _GAP, _TOP, _AXIS = 34.0, 6.0, 8.0, 30.0
#: Rows of one drawing.
MOST_ROWS = 17


def draw_distributions(records: Sequence[DistributionRecord], name: str) -> Markup | None:
    """Draw those of one name; None where there are none."""
    found = [record for record in records if record.name == name][:MOST_ROWS]
    if not found:
        return None
    low = min(_first(record) for record in found)
    high = max(record.edges[-1] for record in found)
    span = math.log(max(high, low * 1.1) / low)
    bottom = _TOP + (_ROW + _GAP) * len(found) - _GAP

    def x(value: float) -> float:
        return LEFT + max(math.log(max(value, low) / low), 0.0) / span * PLOT

    rows = [part for position, record in enumerate(found) for part in _row(record, position, x)]
    unit = found[0].unit
    return el(
        "svg",
        el("title", f"Distribution of {name.replace('_', ' ')}"),
        *_ticks(low, high, unit, x, bottom),
        *rows,
        viewBox=f"0 0 {WIDTH:.0f} {bottom + _AXIS:.0f}",
        class_="distribution",
        role="img",
    )


def percentile(record: DistributionRecord, share: float) -> float:
    """The upper edge of the bin that holds a percentile: exact to one bin."""
    wanted, seen = share * record.samples, 0
    for packets, edge in zip(record.counts, record.edges[1:], strict=True):
        seen += packets
        if seen >= wanted:
            return edge
    return record.edges[-1]


def _first(record: DistributionRecord) -> float:
    """The lower edge of the axis: a logarithm needs more than 0."""
    return record.edges[0] if record.edges[0] > 0 else record.edges[1] / 2


def _row(record: DistributionRecord, position: int, x: Callable[[float], float]) -> Iterator[Markup]:
    top = _TOP + position * (_ROW + _GAP)
    base, most = top + _ROW, max(record.counts)
    yield el("rect", x=LEFT, y=top, width=PLOT, height=_ROW, class_="back")
    parts = [f"M{number(x(record.edges[0]))} {number(base)}"]
    for packets, left, right in zip(record.counts, record.edges, record.edges[1:], strict=False):
        # The root shows a tail of few packets beside a peak of many; it is named beside the drawing.
        y = base - math.sqrt(packets / most) * (_ROW - 3)
        parts.append(f"L{number(x(left))} {number(y)}H{number(x(right))}")
    yield el("path", d="".join(parts) + f"V{number(base)}z", class_="area line")
    p50, p99 = percentile(record, 0.5), percentile(record, 0.99)
    for value, kind in ((p50, "median"), (p99, "tail")):
        yield el("path", d=f"M{number(x(value))} {number(top)}V{number(base)}", class_=kind)
    yield text(record.scope[:11], LEFT - 10, top + _ROW / 2 + 4, "plane", text_anchor="end")
    about = f"p50 ≤ {quantity(p50, record.unit)}, p99 ≤ {quantity(p99, record.unit)}"
    yield text(about, LEFT + PLOT + 10, top + 14, "count")
    yield text(f"n = {count(record.samples)}", LEFT + PLOT + 10, top + 29, "count")


def _ticks(low: float, high: float, unit: str, x: Callable[[float], float], bottom: float) -> Iterator[Markup]:
    last = -math.inf
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for factor in (1, 2, 5):
            value = factor * 10.0**power
            if not low <= value <= high:
                continue
            at = x(value)
            yield el("path", d=f"M{number(at)} {number(_TOP)}V{number(bottom + 4)}", class_="tick")
            if at - last > 56:
                yield text(quantity(value, unit), at, bottom + 18, "axis", text_anchor="middle")
                last = at
