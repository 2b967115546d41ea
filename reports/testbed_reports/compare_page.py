"""Two runs side by side, as a page and on a terminal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from testbed.measure.result_parts import Verdict
from testbed_reports.comparison import Comparison, Figures, Moved, Pair, moved
from testbed_reports.display import SIGNS, count, figure_text, title
from testbed_reports.drawn_compare import draw_compare
from testbed_reports.frame import ALONE, Site, frame, render, script_data

#: Tests listed of each kind, and figures.
MOST_TESTS: Final = 300
MOST_FIGURES: Final = 600
_KINDS: Final = (
    ("Newly not run", "fail", "not_run"),
    ("Newly failing", "fail", "failing"),
    ("Newly unknown", "unknown", "unknown"),
    ("Put right", "pass", "fixed"),
    ("Newly running", "plain", "running"),
)
_STYLES: Final = {"fail": "bold red", "unknown": "yellow", "pass": "green", "plain": ""}


def render_compare(comparison: Comparison, before: Figures, now: Figures, site: Site = ALONE) -> str:
    """The page."""
    found = _worst_first(moved(before, now))
    drawn = draw_compare(found)
    context: dict[str, Any] = {
        "drawing": None if drawn is None else (drawn[0], script_data(drawn[1])),
        "comparison": comparison,
        "kinds": list(_kinds(comparison)),
        "rows": [(one, _ratio(one)) for one in found[:MOST_FIGURES]],
        "more": max(len(found) - MOST_FIGURES, 0),
        "definitions": {title(one.now.name): one.now.definition for one in found[:MOST_FIGURES]},
        "compared": len(before.keys() & now.keys()),
        "most": MOST_TESTS,
        "verdict": comparison.verdict.value,
        "verdicts": list(Verdict),
    }
    return render("compare.html.j2", frame(site, ("page.js",)), context)


def print_compare(comparison: Comparison, before: Figures, now: Figures, console: Console) -> None:
    """The same on a terminal, shorter."""
    sides = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("run", "began", "verdict", "pass", "fail", "unknown", "not run"):
        sides.add_column(heading)
    for run in (comparison.before, comparison.now):
        sign, word = SIGNS[run.verdict]
        sides.add_row(
            run.id,
            f"{run.created:%Y-%m-%d %H:%M}",
            f"{sign} {word}",
            *(count(run.count(verdict)) for verdict in Verdict),
        )
    console.print(sides)
    for heading, state, pairs in _kinds(comparison):
        console.print(Text(f"\n{heading}: {count(len(pairs))}", _STYLES[state]))
        for pair in pairs[:20]:
            reason = f"  {pair.reason.splitlines()[0][:100]}" if pair.reason.strip() else ""
            console.print(Text(f"  {pair.name} ({pair.key[1]}, {pair.key[2]}){reason}"), soft_wrap=True)
        if len(pairs) > 20:
            console.print(Text(f"  and {count(len(pairs) - 20)} more", "dim"))
    if comparison.changes:
        console.print(Text("\nWhat else differs", "bold"))
        for change in comparison.changes[:20]:
            console.print(Text(f"  {change.name}: {change.before} → {change.now}"), soft_wrap=True)
    _print_figures(before, now, console)


def _print_figures(before: Figures, now: Figures, console: Console) -> None:
    found = _worst_first(moved(before, now))
    shared = len(before.keys() & now.keys())
    console.print(
        Text(f"\nFigures that differ by more than their resolution: {count(len(found))} of {count(shared)}", "bold")
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("test", "figure", "then", "now", "ratio"):
        table.add_column(heading, justify="left" if heading in ("test", "figure") else "right", overflow="fold")
    for one in found[:20]:
        cells = (one.key[0], title(one.now.name), figure_text(one.before), figure_text(one.now), _ratio(one))
        table.add_row(*(Text(cell) for cell in cells))
    if found:
        console.print(table)
        console.print(Text("Two runs do not tell how much a figure varies: trends do.", "dim"))


def _kinds(comparison: Comparison) -> Iterator[tuple[str, str, Sequence[Pair]]]:
    for heading, state, name in _KINDS:
        pairs: Sequence[Pair] = getattr(comparison, name)
        if pairs:
            yield heading, state, pairs


def _worst_first(found: Iterator[Moved]) -> list[Moved]:
    """Those whose ratio is furthest from 1 first; those that became known or unknown before all."""

    def distance(one: Moved) -> float:
        ratio = one.ratio
        if ratio is None or ratio <= 0:
            return float("inf")
        return max(ratio, 1 / ratio)

    return sorted(found, key=lambda one: -distance(one))


def _ratio(one: Moved) -> str:
    return "–" if one.ratio is None else f"{one.ratio:.3g} ×"


def as_json(comparison: Comparison, before: Figures, now: Figures) -> dict[str, Any]:
    """The comparison for programs."""
    lists: dict[str, list[dict[str, str]]] = defaultdict(list)
    for _, _, name in _KINDS:
        lists[name] = [
            {"test": pair.key[0], "lab": pair.key[1], "realised": pair.key[2], "reason": pair.reason}
            for pair in getattr(comparison, name)
        ]
    return {
        "before": comparison.before.id,
        "now": comparison.now.id,
        "verdict": comparison.verdict.value,
        **lists,
        "changes": [{"name": one.name, "before": one.before, "now": one.now} for one in comparison.changes],
        "figures": [
            {
                "test": one.key[0],
                "lab": one.key[1],
                "realised": one.key[2],
                "figure": one.now.name,
                "scope": one.now.scope,
                "unit": one.now.unit,
                "before": one.before.value,
                "now": one.now.value,
            }
            for one in _worst_first(moved(before, now))
        ],
    }
