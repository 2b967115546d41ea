"""Trend pages: what changed, over all tests; and for each test its measurements, drawn or summed up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final

from testbed_reports.comparison import Key
from testbed_reports.display import count, quantity, title
from testbed_reports.frame import Site, frame, render, script_data
from testbed_reports.trends.drawn_trend import draw_trend
from testbed_reports.trends.store import Told, Trend

#: Measurements of a test that are drawn: those people ask for, and whatever changed.
DRAWN: Final = (
    "loss_ratio",
    "lost_outside_faults",
    "failover",
    "restore",
    "outage",
    "reordered_ratio",
    "goodput",
    "delay_p50",
    "delay_p99",
    "plane_imbalance",
    "message_time_p99",
    "unexplained_packets",
)
MOST_DRAWN: Final = 24
#: Changes that the first page of trends lists.
MOST_TOLD: Final = 400
MOST_TESTS: Final = 20_000


def render_trends(told: Sequence[Told], trends: Sequence[Trend], addresses: dict[Key, str], site: Site) -> str:
    """The first page: changes, the newest first, and a list of tests."""
    newest = sorted(told, key=lambda one: (one.first.created, not one.new), reverse=True)
    series: dict[Key, list[Trend]] = {}
    for trend in trends:
        series.setdefault(trend.key, []).append(trend)
    context: dict[str, Any] = {
        "told": [_told(one, addresses) for one in newest[:MOST_TOLD]],
        "more": max(len(newest) - MOST_TOLD, 0),
        "fresh": sum(one.new for one in told),
        "tests": [
            (key, addresses[key], len(found), sum(len(trend.changes) for trend in found))
            for key, found in list(series.items())[:MOST_TESTS]
        ],
        "series": len(trends),
    }
    return render("trends.html.j2", frame(site, ("index.js",), "trends/index.html"), context)


def render_test_trends(key: Key, trends: Sequence[Trend], told: Sequence[Told], site: Site) -> str:
    """One test's page."""
    drawn = []
    for trend in _to_draw(trends):
        svg, data = draw_trend(trend)
        drawn.append((trend, title(trend.figure), svg, script_data(data), _range_text(trend)))
    shown = {id(trend) for trend, *_ in drawn}
    rest = [_row(trend) for trend in trends if id(trend) not in shown]
    context: dict[str, Any] = {
        "key": key,
        "drawn": drawn,
        "rest": rest,
        "definitions": {row["figure"]: row["definition"] for row in rest},
        "told": [_told(one, {}) for one in told],
        "runs": max((len(trend.points) for trend in trends), default=0),
    }
    return render("trend.html.j2", frame(site, ("page.js",), "trends/index.html"), context)


def _to_draw(trends: Sequence[Trend]) -> Iterator[Trend]:
    order = {name: position for position, name in enumerate(DRAWN)}
    wanted = [trend for trend in trends if trend.changes or trend.figure in order]
    wanted.sort(key=lambda trend: (not trend.changes, order.get(trend.figure, len(order)), trend.scope))
    yield from wanted[:MOST_DRAWN]


def _told(one: Told, addresses: dict[Key, str]) -> dict[str, Any]:
    change, trend = one.change, one.trend
    ratio = "" if not change.before else f"{change.after / change.before:.3g} ×"
    return {
        "key": trend.key,
        "address": addresses.get(trend.key, ""),
        "anchor": f"s{trend.number}",
        "figure": title(trend.figure),
        "scope": trend.scope,
        "direction": one.direction,
        "before": quantity(change.before, trend.unit, name=trend.figure),
        "after": quantity(change.after, trend.unit, name=trend.figure),
        "ratio": ratio,
        "p": f"{change.p_value:.1g}",
        "sizes": f"{count(change.before_count)} + {count(change.after_count)}",
        "last": one.last,
        "first": one.first,
        "conditions": one.conditions[:6],
        "more": max(len(one.conditions) - 6, 0),
        "new": one.new,
    }


def _range_text(trend: Trend) -> str:
    values = [point.value for point in trend.points]
    low, mid, high = (
        quantity(value, trend.unit, name=trend.figure) for value in (min(values), median(values), max(values))
    )
    return f"{low} to {high}, median {mid}"


def _row(trend: Trend) -> dict[str, str]:
    values = [point.value for point in trend.points]
    texts = [_text(trend, value) for value in (values[-1], min(values), median(values), max(values))]
    names = ("last", "least", "median", "most")
    return dict(zip(names, texts, strict=True)) | {
        "figure": title(trend.figure),
        "scope": trend.scope,
        "runs": count(len(values)),
        "definition": trend.definition,
    }


def _text(trend: Trend, value: float) -> str:
    return quantity(value, trend.unit, name=trend.figure)
