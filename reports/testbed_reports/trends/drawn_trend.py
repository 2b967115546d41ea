"""One measurement over all runs, as a drawing: a dot per run, the levels between changes, and where these may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

from markupsafe import Markup

from testbed_reports.display import count, quantity
from testbed_reports.svg import el, number, text, together
from testbed_reports.trends.store import Trend

WIDTH, LEFT, RIGHT = 1120.0, 92.0, 150.0
PLOT = WIDTH - LEFT - RIGHT
_HIGH, _TOP, _AXIS = 120.0, 16.0, 30.0


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
    inner = together(
        [
            *_ranges(trend, bottom),
            *(el("path", d=path, class_="rate", vector_effect="non-scaling-stroke") for path in _levels(trend, y)),
            el("path", d=dots, class_="dot point", vector_effect="non-scaling-stroke"),
        ]
    )
    plot = el(
        "svg",
        inner,
        x=LEFT,
        y=0.0,
        width=PLOT,
        height=bottom,
        viewBox=f"0 0 {size} {bottom:.0f}",
        preserveAspectRatio="none",
        class_="plot",
    )
    svg = el(
        "svg",
        el("title", f"{trend.figure.replace('_', ' ')} of {trend.key[0]} over {size} runs"),
        el("rect", x=LEFT, y=_TOP, width=PLOT, height=_HIGH, class_="back"),
        _ticks(trend, bottom),
        plot,
        *_scale(trend, y),
        *_notes(trend),
        el("line", x1=0.0, x2=0.0, y1=_TOP, y2=bottom, class_="cursor", visibility="hidden"),
        viewBox=f"0 0 {WIDTH:.0f} {bottom + _AXIS:.0f}",
        class_="timeline trend",
        role="img",
        tabindex="0",
    )
    labels = [
        [
            f"{point.created:%m-%d}",
            f"{point.created:%Y-%m-%d %H:%M}",
            ("≥ " if point.at_least else "") + quantity(point.value, trend.unit, name=trend.figure),
            f"n = {count(point.samples)}, {point.verdict.replace('_', ' ')}",
        ]
        for point in trend.points
    ]
    data = {"count": size, "labels": labels, "left": LEFT, "width": PLOT, "top": _TOP, "strips": []}
    return svg, data


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


def _ticks(trend: Trend, bottom: float) -> Markup:
    size, parts = len(trend.points), []
    step = max(math.ceil(size / 9), 1)
    for position in range(0, size, step):
        x = LEFT + (position + 0.5) / size * PLOT
        parts.append(el("path", d=f"M{x:.1f} {_TOP:.0f}V{bottom + 5:.0f}", class_="tick"))
        label = f"{trend.points[position].created:%m-%d}"
        parts.append(text(label, round(x, 1), bottom + 18, "axis", text_anchor="middle"))
    return el("g", *parts, class_="ticks")


def _scale(trend: Trend, y: Callable[[float], float]) -> Iterator[Markup]:
    """Three values beside the axis."""
    values = [point.value for point in trend.points]
    shown: list[float] = []
    for value in (max(values), min(values), (max(values) + min(values)) / 2):
        at = y(value)
        if all(abs(at - other) > 18 for other in shown):
            shown.append(at)
            label = quantity(value, trend.unit, name=trend.figure)
            yield text(label, LEFT - 8, at + 4, "axis", text_anchor="end")


def _notes(trend: Trend) -> Iterator[Markup]:
    x = LEFT + PLOT + 12
    last = trend.points[-1]
    yield text("last", x, _TOP + 14, "count")
    yield text(quantity(last.value, trend.unit, name=trend.figure), x, _TOP + 31, "plane")
    lines = [f"{count(len(trend.points))} runs"]
    if trend.unknown:
        lines.append(f"unknown in {count(trend.unknown)} more")
    lines += [f"changed, p = {change.p_value:.1g}" for change in trend.changes[-1:]]
    for position, line in enumerate(lines):
        yield text(line, x, _TOP + 52 + 16 * position, "count")
