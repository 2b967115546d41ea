"""One measurement over all runs, as a drawing: a dot per run, the levels between changes, and where these may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import pairwise

from markupsafe import Markup

from testbed_reports.display import count, quantity
from testbed_reports.plots import Plot
from testbed_reports.svg import el, number, text
from testbed_reports.trends.store import Trend

_LEFT, _RIGHT, _HIGH, _TOP = 92.0, 150.0, 120.0, 16.0


def draw_trend(trend: Trend) -> tuple[Markup, dict[str, object]]:
    """The drawing, and what its zooming and pointing need. The trend has points."""
    values = [point.value for point in trend.points]
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    low, high = low - room, high + room
    bottom = _TOP + _HIGH

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * _HIGH

    size = len(values)
    dots = "".join(f"M{position}.5 {number(y(value))}h0" for position, value in enumerate(values))
    plot = Plot(size, _LEFT, _RIGHT, _TOP, bottom)
    svg = plot.svg(
        f"{trend.figure.replace('_', ' ')} of {trend.key[0]} over {size} runs",
        "trend",
        behind=[plot.back(_TOP, _HIGH), plot.ticks(_ticks(trend))],
        inside=[
            *_ranges(trend, bottom),
            *(el("path", d=path, class_="rate", vector_effect="non-scaling-stroke") for path in _levels(trend, y)),
            el("path", d=dots, class_="dot point", vector_effect="non-scaling-stroke"),
        ],
        around=[*_scale(trend, y), *_notes(trend, plot)],
    )
    labels = [
        [
            *_when(point.created),
            ("≥ " if point.at_least else "") + quantity(point.value, trend.unit, name=trend.figure),
            f"n = {count(point.samples)}, {point.verdict.replace('_', ' ')}",
        ]
        for point in trend.points
    ]
    return svg, plot.data() | {"labels": labels, "strips": []}


@lru_cache(maxsize=1024)
def _when(created: datetime) -> tuple[str, str]:
    """A day as the axis says it, and as the readout does. The same runs are on every drawing."""
    return f"{created:%m-%d}", f"{created:%Y-%m-%d %H:%M}"


def _ranges(trend: Trend, bottom: float) -> Iterator[Markup]:
    for change in trend.changes:
        kind = trend.direction(change)
        # Between the last value of the old level and the first of the new.
        yield el(
            "g",
            el("title", f"changed here, p = {change.p_value:.1g}"),
            el(
                "rect",
                x=change.low - 0.5,
                y=_TOP,
                width=float(change.high - change.low + 1),
                height=bottom - _TOP,
                class_=f"shade {kind}",
            ),
        )


def _levels(trend: Trend, y: Callable[[float], float]) -> Iterator[str]:
    edges = [0, *(change.at for change in trend.changes), len(trend.points)]
    for begin, end in pairwise(edges):
        values = sorted(point.value for point in trend.points[begin:end])
        middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
        yield f"M{begin} {number(y(middle))}H{end}"


def _ticks(trend: Trend) -> Iterator[tuple[float, str]]:
    step = max(math.ceil(len(trend.points) / 9), 1)
    return ((at + 0.5, _when(trend.points[at].created)[0]) for at in range(0, len(trend.points), step))


def _scale(trend: Trend, y: Callable[[float], float]) -> Iterator[Markup]:
    """Three values beside the axis."""
    values = [point.value for point in trend.points]
    shown: list[float] = []
    for value in (max(values), min(values), (max(values) + min(values)) / 2):
        at = y(value)
        if all(abs(at - other) > 18 for other in shown):
            shown.append(at)
            label = quantity(value, trend.unit, name=trend.figure)
            yield text(label, _LEFT - 8, at + 4, "axis", text_anchor="end")


def _notes(trend: Trend, plot: Plot) -> Iterator[Markup]:
    x, last = plot.beside, trend.points[-1]
    yield text("last", x, _TOP + 14, "count")
    yield text(quantity(last.value, trend.unit, name=trend.figure), x, _TOP + 31, "plane")
    lines = [f"{count(len(trend.points))} runs"]
    if trend.unknown:
        lines.append(f"unknown in {count(trend.unknown)} more")
    lines += [f"changed, p = {change.p_value:.1g}" for change in trend.changes[-1:]]
    for position, line in enumerate(lines):
        yield text(line, x, _TOP + 52 + 16 * position, "count")
