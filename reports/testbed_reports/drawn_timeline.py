"""What happened when, as a drawing: lanes of events above one strip of goodput per plane, on one time axis.

The unit of x is one drawn window.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from testbed.measure.result import Result
from testbed.measure.result_parts import EventRecord
from testbed.measure.series import TimelineRecord
from testbed_reports.display import count, offset, quantity
from testbed_reports.plots import WIDTH, Plot
from testbed_reports.strips import Strip, draw_strip, full_scale
from testbed_reports.svg import el, number, text

_LEFT, _RIGHT, _TOP = 74.0, 134.0, 18.0
#: Drawn windows at most; above it, neighbours are merged.
MOST_WINDOWS = 480
_LANE, _STRIP, _GAP = 22.0, 40.0, 7.0
#: Events of senders' entropy values are told apart from others of traffic.
EV_LANE = "EV states"
_FIRST_LANES = ("fault", "carrier", "tables", EV_LANE, "traffic")
_MOST_LANES = 8
_MOST_MARKS = 200
#: Flows drawn at most, those that lost the most.
MOST_FLOWS = 32
_EV = re.compile(r"\bev 0x")


@dataclass(frozen=True)
class Axis:
    """Time ↔ windows of the drawing.

    Attributes:
        start_ns: left edge.
        window_ns: unit of x.
        windows: width.
        zero_ns: where the axis says 0: the first fault, else the left edge.

    """

    start_ns: int
    window_ns: int
    windows: int
    zero_ns: int

    def x(self, t_ns: int) -> float:
        """Windows from the left edge."""
        return (t_ns - self.start_ns) / self.window_ns

    def clamped(self, t_ns: int) -> float:
        """The same, kept within the drawing."""
        return min(max(self.x(t_ns), 0.0), float(self.windows))


@dataclass(frozen=True)
class Drawing:
    """The drawing, and what its hovering and zooming need."""

    svg: Markup
    data: dict[str, object]
    full_scale: str
    window: str
    merged: int


def drawn_series(result: Result) -> TimelineRecord | None:
    """A result's time series with no more windows than are drawn; None where it has none."""
    if result.timeline is None or not result.timeline.windows:
        return None
    return result.timeline.thinned(MOST_WINDOWS)


def draw_timeline(result: Result, series: TimelineRecord) -> Drawing:
    """Draw a result's series, a strip per plane."""
    strips = [
        Strip(f"plane {one.plane}", one.delivered, one.delivered_min, one.delivered_max, one.lost, one.reordered)
        for one in series.planes
    ]
    notes = [
        (f"lost {count(sum(one.lost))}", f"reordered {count(sum(one.reordered))}", any(one.lost))
        for one in series.planes
    ]
    return _draw(result, series, strips, notes, _lanes(result.events), "Events and goodput per plane over time")


def draw_flows(result: Result, series: TimelineRecord) -> Drawing | None:
    """The same with a strip per flow, and only the faults above them; None where it has no flows."""
    if not series.flows:
        return None
    flows = sorted(series.flows, key=lambda one: -sum(one.lost))[:MOST_FLOWS]
    shown = [one for one in series.flows if one in flows]
    strips = [Strip(one.flow, one.delivered, one.delivered_min, one.delivered_max, one.lost) for one in shown]
    notes = [(f"lost {count(sum(one.lost))}", "", any(one.lost)) for one in shown]
    return _draw(result, series, strips, notes, {}, "Goodput per flow over time")


def _draw(
    result: Result,
    series: TimelineRecord,
    strips: Sequence[Strip],
    notes: Sequence[tuple[str, str, bool]],
    lanes: dict[str, list[EventRecord]],
    title: str,
) -> Drawing:
    first_fault = min((fault.begin_ns for fault in result.faults), default=series.origin_ns)
    axis = Axis(series.origin_ns, series.drawn_window_ns, series.windows, first_fault)
    strips_top = _TOP + _LANE * len(lanes) + (6 if lanes else 0)
    bottom = strips_top + (_STRIP + _GAP) * len(strips) - _GAP
    full = full_scale(strips, series)
    plot = Plot(axis.windows, _LEFT, _RIGHT, _TOP, bottom)
    svg = plot.svg(
        title,
        "",
        behind=[*_backs(len(strips), strips_top, plot), plot.ticks(_ticks(axis))],
        inside=[*_shades(result, axis, bottom), *_marks(lanes, axis), *_strips(strips, series, strips_top, full)],
        around=[
            *_fault_labels(result, axis, plot),
            *_lane_labels(lanes, axis, plot),
            *_strip_labels(strips, notes, strips_top, plot),
        ],
    )
    data = plot.data() | _data(result, series, strips, axis)
    return Drawing(svg, data, _scale_text(full, series), _seconds(axis.window_ns), series.merged)


# -- the plot area: windows by pixels ---------------------------------------------------------------------------


def _strips(strips: Sequence[Strip], series: TimelineRecord, top: float, full: float) -> Iterator[Markup]:
    most_lost = max((max(strip.lost) for strip in strips), default=0)
    most_late = max((max(strip.late, default=0) for strip in strips), default=0)
    for position, strip in enumerate(strips):
        base = top + position * (_STRIP + _GAP) + _STRIP
        yield from draw_strip(strip, series, base, _STRIP, full, most_lost, most_late)


def _shades(result: Result, axis: Axis, bottom: float) -> Iterator[Markup]:
    for fault in result.faults:
        begin = axis.clamped(fault.begin_ns)
        end = axis.clamped(fault.end_ns) if fault.end_ns is not None else float(axis.windows)
        about = f"{fault.kind} {fault.subject}"
        yield el(
            "g",
            el("title", about),
            el("rect", x=begin, y=0.0, width=max(end - begin, 0.01), height=bottom, class_="shade"),
            *(
                el("path", d=f"M{number(x)} 0V{number(bottom)}", class_="edge", vector_effect="non-scaling-stroke")
                for x in (begin, end)
            ),
        )


def _marks(lanes: dict[str, list[EventRecord]], axis: Axis) -> Iterator[Markup]:
    for position, (lane, events) in enumerate(lanes.items()):
        y = _TOP + _LANE * (position + 0.5)
        for event in events[:_MOST_MARKS]:
            x = axis.clamped(event.t_ns)
            about = f"{offset(event.t_ns, axis.zero_ns)} {event.subject} {event.what}"
            if event.uncertainty_ns:
                about += f", within the {_seconds(event.uncertainty_ns)} before"
            parts = [el("title", about)]
            early = axis.clamped(event.t_ns - event.uncertainty_ns)
            if early < x:
                parts.append(_mark(early, y, f"h{number(x - early)}", f"span {_lane_class(lane)}"))
            # A line of no length with round ends is a dot that no stretching deforms.
            parts.append(_mark(x, y, "h0", f"dot {_lane_class(lane)}"))
            yield el("g", *parts)


def _mark(x: float, y: float, to: str, class_: str) -> Markup:
    return el("path", d=f"M{number(x)} {number(y)}{to}", class_=class_, vector_effect="non-scaling-stroke")


def _lane_class(lane: str) -> str:
    return {EV_LANE: "traffic"}.get(lane, lane if lane in _FIRST_LANES else "other")


# -- around it: pixels ------------------------------------------------------------------------------------------


def _lanes(events: Iterable[EventRecord]) -> dict[str, list[EventRecord]]:
    found: dict[str, list[EventRecord]] = defaultdict(list)
    for event in events:
        found[EV_LANE if event.lane == "traffic" and _EV.search(event.subject) else event.lane].append(event)
    known = [lane for lane in _FIRST_LANES if lane in found]
    others = sorted(lane for lane in found if lane not in _FIRST_LANES)
    return {lane: found[lane] for lane in (known + others)[:_MOST_LANES]}


def _backs(strips: int, top: float, plot: Plot) -> Iterator[Markup]:
    return (plot.back(top + position * (_STRIP + _GAP), _STRIP) for position in range(strips))


def _fault_labels(result: Result, axis: Axis, plot: Plot) -> Iterator[Markup]:
    free = -math.inf
    for fault in sorted(result.faults, key=lambda fault: fault.begin_ns):
        windows = axis.clamped(fault.begin_ns)
        x = plot.x(windows)
        label = f"{fault.kind} {fault.subject}"
        if x >= free:
            yield text(label, x, 12.0, "flag at", data_x=f"{windows:.3f}")
            free = x + 7.0 * len(label)


def _lane_labels(lanes: dict[str, list[EventRecord]], axis: Axis, plot: Plot) -> Iterator[Markup]:
    for position, (lane, events) in enumerate(lanes.items()):
        y = _TOP + _LANE * (position + 0.5) + 4
        yield text(lane[:11], _LEFT - 10, y, "lane", text_anchor="end")
        yield from _event_labels(list(_grouped(events[:_MOST_MARKS], axis)), axis, y, plot)


def _event_labels(labels: list[tuple[str, int]], axis: Axis, y: float, plot: Plot) -> Iterator[Markup]:
    """Labels right of their dots, or left of them, wherever they cover neither a dot nor a label."""
    xs = [plot.x(axis.clamped(t_ns)) for _, t_ns in labels]
    free = _LEFT
    for (label, t_ns), x, following in zip(labels, xs, [*xs[1:], WIDTH], strict=True):
        width = 5.9 * len(label) + 16
        windows = f"{axis.clamped(t_ns):.3f}"
        if max(free, x) + width < following:
            yield text(label, x + 9, y, "event at", data_x=windows, data_dx="9")
            free = x + width
        elif x - width > free:
            yield text(label, x - 9, y, "event at", text_anchor="end", data_x=windows, data_dx="-9")
            free = x + 9
        else:
            free = max(free, x + 9)


def _grouped(events: Sequence[EventRecord], axis: Axis) -> Iterator[tuple[str, int]]:
    """Neighbouring events that did the same thing, as one label at the last of them."""
    group: list[EventRecord] = []
    for event in events:
        near = group and axis.x(event.t_ns) - axis.x(group[-1].t_ns) < axis.windows / 100
        if group and not (near and event.what == group[0].what):
            yield _label(group)
            group = []
        group.append(event)
    if group:
        yield _label(group)


def _label(group: list[EventRecord]) -> tuple[str, int]:
    what = group[0].what[:40]
    return (what if len(group) == 1 else f"{len(group)} × {what}"), group[-1].t_ns


def _strip_labels(
    strips: Sequence[Strip], notes: Sequence[tuple[str, str, bool]], top: float, plot: Plot
) -> Iterator[Markup]:
    for position, (strip, (lost, further, bad)) in enumerate(zip(strips, notes, strict=True)):
        y = top + position * (_STRIP + _GAP)
        label = strip.label if len(strip.label) <= 11 else strip.label[:10] + "…"
        yield text(label, _LEFT - 10, y + _STRIP / 2 + 4, "plane", text_anchor="end")
        yield text(lost, plot.beside, y + 15, "count bad" if bad else "count")
        if further:
            yield text(further, plot.beside, y + 31, "count")


def _ticks(axis: Axis) -> Iterator[tuple[float, str]]:
    """Round seconds, by window."""
    left = (axis.start_ns - axis.zero_ns) * 1e-9
    window_s = axis.window_ns * 1e-9
    span = axis.windows * window_s
    step = _round_step(span / 9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    for position in range(math.ceil(left / step - 1e-9), math.floor((left + span) / step + 1e-9) + 1):
        label = f"{position * step:.{decimals}f}".replace("-", "−") if position else "0"
        yield (position * step - left) / window_s, label


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least ``least``."""
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


# -- numbers ----------------------------------------------------------------------------------------------------


def _scale_text(full: float, series: TimelineRecord) -> str:
    if series.payload_bytes:
        return quantity(full * series.payload_bytes * 8e9 / series.window_ns, "bit/s")
    return f"{full:.0f} packets per {_seconds(series.window_ns)}"


def _seconds(ns: int) -> str:
    return quantity(ns * 1e-9, "s")


def _data(result: Result, series: TimelineRecord, strips: Sequence[Strip], axis: Axis) -> dict[str, object]:
    window_s = series.drawn_window_ns * 1e-9
    return {
        "zero": (axis.start_ns - axis.zero_ns) * 1e-9,
        "window": window_s,
        "last": series.last_merged / series.merged,
        "bits": series.payload_bytes * 8,
        "faults": [
            [axis.clamped(fault.begin_ns), axis.clamped(fault.end_ns) if fault.end_ns is not None else axis.windows]
            for fault in result.faults[:20]
        ],
        "strips": [[strip.label, strip.delivered, strip.lost, strip.late] for strip in strips],
    }
