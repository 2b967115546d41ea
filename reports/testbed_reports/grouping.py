"""Figures in the tables a reader looks for: over all, per plane, per flow, per EV."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TypeVar

from markupsafe import Markup

from testbed.measure.result_parts import FigureRecord
from testbed_reports.display import count, figure_text, quantity, resolution_text, title

#: Rows beyond these are left to the result file; those with the most loss are kept.
MOST_FLOWS = 128
MOST_EVS = 640
#: What flows and EVs are compared by; the result file has the rest.
_FLOW_COLUMNS = (
    "sent",
    "lost",
    "loss_ratio",
    "reordered_ratio",
    "reordering_extent_max",
    "blocked_time",
    "outage",
    "delay_p50",
    "delay_p99",
    "delay_variation",
    "goodput",
)
_EV_COLUMNS = ("lost", "loss_ratio", "blocked_time", "outage", "delay_p50", "delay_p99")
_PLANE = re.compile(r"plane (\d{1,3})")
_FLOW = re.compile(r"flow (\S+)")
_EV = re.compile(r"flow (\S+) ev (\S+)|ev (\S+)")
_THRESHOLD = re.compile(r"n_reordering_(\d+)")
_K = TypeVar("_K")


@dataclass(frozen=True)
class Cell:
    """One figure of a table: its text, and what belongs to it."""

    text: str
    about: str = ""
    known: bool = True


@dataclass(frozen=True)
class Row:
    """One row: its head, its cells, and over them the samples and the resolution."""

    head: str
    cells: list[Cell]
    samples: str = ""
    resolution: str = ""
    about: str = ""


@dataclass(frozen=True)
class Table:
    """Rows by columns; ``left_out`` rows are in the result file only."""

    columns: list[str]
    rows: list[Row]
    left_out: int = 0
    definitions: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> Markup:
        """Its rows. A page has hundreds of them, and a template needs several times as long."""
        return Markup("".join([_row(row) for row in self.rows]))  # noqa: S704 - escaped there


def _row(row: Row) -> str:
    parts = [f'<tr><th scope="row">{escape(row.head)}</th>']
    for cell in row.cells:
        about = f' title="{escape(cell.about)}"' if cell.about else ""
        parts.append(f'<td class="n{"" if cell.known else " unknown"}"{about}>{escape(cell.text)}</td>')
    parts.append(f'<td class="n soft">{escape(row.samples)}</td>')
    if row.resolution:
        parts.append(f'<td class="n soft">{escape(row.resolution)}</td>')
    return "".join([*parts, "</tr>\n"])


@dataclass(frozen=True)
class Grouped:
    """All figures of a result, by what they describe.

    Attributes:
        all: of scope ``all``, n-reordering apart.
        thresholds: n-reordering over all, by n.
        planes: a row per figure, a column per plane.
        flows: a row per flow.
        evs: per flow, a row per EV.
        other: every other scope.
        evs_left_out: rows of EVs that are in the result file only.

    """

    all: list[FigureRecord]
    thresholds: list[FigureRecord]
    planes: Table
    flows: Table
    evs: dict[str, Table]
    other: list[FigureRecord]
    evs_left_out: int


def grouped(figures: Sequence[FigureRecord]) -> Grouped:
    """Sort figures into tables."""
    over_all: list[FigureRecord] = []
    thresholds: list[FigureRecord] = []
    other: list[FigureRecord] = []
    planes: dict[str, list[FigureRecord]] = defaultdict(list)
    flows: dict[str, list[FigureRecord]] = defaultdict(list)
    evs: dict[tuple[str, str], list[FigureRecord]] = defaultdict(list)
    for figure in figures:
        if figure.scope == "all":
            (thresholds if _THRESHOLD.fullmatch(figure.name) else over_all).append(figure)
        elif match := _PLANE.fullmatch(figure.scope):
            planes[match[1]].append(figure)
        elif match := _FLOW.fullmatch(figure.scope):
            flows[match[1]].append(figure)
        elif match := _EV.fullmatch(figure.scope):
            evs[match[1] or "any flow", match[2] or match[3]].append(figure)
        else:
            other.append(figure)
    kept = _worst(evs, MOST_EVS)
    per_flow: dict[str, dict[str, list[FigureRecord]]] = defaultdict(dict)
    for flow, ev in kept:
        per_flow[flow][ev] = evs[flow, ev]
    return Grouped(
        all=over_all,
        thresholds=thresholds,
        planes=_by_figure(planes),
        flows=_by_scope({flow: flows[flow] for flow in _worst(flows, MOST_FLOWS)}, _FLOW_COLUMNS, len(flows)),
        evs={flow: _by_scope(rows, _EV_COLUMNS, len(rows)) for flow, rows in per_flow.items()},
        other=other[:MOST_FLOWS],
        evs_left_out=len(evs) - len(kept),
    )


def _worst(scopes: dict[_K, list[FigureRecord]], most: int) -> list[_K]:
    """All scopes in their own order, or as many of those with the most loss."""
    if len(scopes) <= most:
        return list(scopes)
    lost = {
        key: next((figure.value or 0.0 for figure in found if figure.name == "lost"), 0.0)
        for key, found in scopes.items()
    }
    kept = set(sorted(scopes, key=lambda key: -lost[key])[:most])
    return [key for key in scopes if key in kept]


def _by_figure(planes: dict[str, list[FigureRecord]]) -> Table:
    columns = sorted(planes, key=int)
    names = list(dict.fromkeys(figure.name for figures in planes.values() for figure in figures))
    rows, definitions = [], {}
    for name in names:
        found = {plane: figure for plane in columns for figure in planes[plane] if figure.name == name}
        if _THRESHOLD.fullmatch(name):
            continue
        definitions[name] = next(iter(found.values())).definition
        cells = [_cell(found.get(plane)) for plane in columns]
        rows.append(
            Row(
                _head(next(iter(found.values()))),
                cells,
                _samples(found.values()),
                _resolution(found.values()),
                definitions[name],
            )
        )
    return Table([f"plane {plane}" for plane in columns], rows, definitions={row.head: row.about for row in rows})


def _by_scope(scopes: dict[str, list[FigureRecord]], wanted: Sequence[str], everything: int) -> Table:
    indexed = {scope: {figure.name: figure for figure in figures} for scope, figures in scopes.items()}
    names = [name for name in wanted if any(name in found for found in indexed.values())]
    definitions = {
        title(name): next(found[name].definition for found in indexed.values() if name in found) for name in names
    }
    rows = [
        Row(scope, [_cell(found.get(name)) for name in names], _samples(found[name] for name in names if name in found))
        for scope, found in indexed.items()
    ]
    heads = [_head(next(found[name] for found in indexed.values() if name in found)) for name in names]
    return Table(heads, rows, everything - len(rows), definitions)


def _head(figure: FigureRecord) -> str:
    """A figure's name, with the unit its cells leave out."""
    return f"{title(figure.name)}, {figure.unit}" if figure.unit == "packets" else title(figure.name)


def _cell(figure: FigureRecord | None) -> Cell:
    if figure is None:
        return Cell("–", "not measured", known=False)
    if figure.value is None:
        return Cell(figure_text(figure), figure.note[:200], known=False)
    return Cell(figure_text(figure, bare=True))


def _samples(figures: Iterable[FigureRecord]) -> str:
    """Least to most samples, as one text."""
    found = sorted({figure.samples for figure in figures})
    if not found:
        return "0"
    return count(found[0]) if len(found) == 1 else f"{count(found[0])}–{count(found[-1])}"


def _resolution(figures: Iterable[FigureRecord]) -> str:
    """The coarsest resolution, as one text."""
    known = [figure for figure in figures if figure.value is not None]
    coarse = [figure for figure in known if figure.resolution]
    if not coarse:
        return "exact" if known else "–"
    return resolution_text(max(coarse, key=lambda figure: figure.resolution or 0.0))


def stands_for(figure: FigureRecord, time_scale: float) -> str:
    """What a figure of a time-scaled run stands for at full scale; empty where it stands for itself."""
    if time_scale == 1 or not figure.value:
        return ""
    factor = {"s": 1 / time_scale, "bit/s": time_scale}.get(figure.unit)
    if factor is None:
        return ""
    resolution = None if figure.resolution is None else figure.resolution * factor
    return quantity(figure.value * factor, figure.unit, resolution)
