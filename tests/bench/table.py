"""Sections as tables for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.bench.figures import Figure, Section, Verdict

_WIDTH = 140
_COLOURS = {Verdict.MET: "green", Verdict.NOT_MET: "red", Verdict.UNKNOWN: "yellow", Verdict.NOT_RUN: "yellow"}


def printer() -> Console:
    """A console wide enough for the tables where nobody's terminal says otherwise."""
    wide = Console(highlight=False)
    return wide if wide.is_terminal else Console(highlight=False, width=_WIDTH)


def show(section: Section, console: Console) -> None:
    """Print a section: its figures, what each of them is, and its notes."""
    table = Table(title=f"{section.name}: {section.about}", title_justify="left", title_style="bold", box=box.SIMPLE)
    for heading in ("figure", "unit", "n", "min", "median", "max", "headroom", "other work", "limit", "verdict"):
        told = heading in ("figure", "unit", "limit", "verdict")
        table.add_column(heading, justify="left" if told else "right", no_wrap=heading == "figure")
    for figure in section.figures:
        table.add_row(*_cells(figure))
    console.print(table)
    for figure in section.figures:
        if figure.reason:
            console.print(
                f"  [yellow]{figure.verdict}[/]: {escape(figure.name)}: {escape(figure.reason)}", soft_wrap=True
            )
    for figure in section.figures:
        if figure.definition:
            console.print(f"  [dim]{escape(figure.name)}: {escape(figure.definition)}[/]", soft_wrap=True)
    for note in section.notes:
        console.print(f"  [dim]{escape(note)}[/]", soft_wrap=True)
    console.print()


def _cells(figure: Figure) -> list[str]:
    verdict = figure.verdict
    colour = _COLOURS.get(verdict)
    told = f"[{colour}]{verdict}[/]" if colour else str(verdict)
    limit = "" if figure.limit is None else str(figure.limit)
    name = escape(figure.name)
    if not figure.samples:
        return [name, figure.unit, "0", "", "", "", "", "", limit, told]
    headroom = f"{min(share.headroom for share in figure.shares):.0%}" if figure.shares else ""
    foreign = f"{max(share.foreign for share in figure.shares):.0%}" if figure.shares else ""
    spread = [_number(of(figure.samples)) for of in (min, statistics.median, max)]
    return [name, figure.unit, str(len(figure.samples)), *spread, headroom, foreign, limit, told]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def as_json(section: Section) -> dict[str, Any]:
    """A section with every sample."""
    return {
        "name": section.name,
        "about": section.about,
        "figures": [
            {
                **dataclasses.asdict(figure),
                "median": statistics.median(figure.samples) if figure.samples else None,
                "verdict": str(figure.verdict) or "no limit",
                "reason": figure.reason,
            }
            for figure in section.figures
        ],
        "notes": list(section.notes),
    }
