"""The table of a qualification, as Markdown and on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from testbed.qualify.verdicts import Interval, Row, Verdict

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {
    Verdict.PASS: "green",
    Verdict.PART: "green",
    Verdict.FAIL: "red",
    Verdict.UNKNOWN: "yellow",
    Verdict.NOT_RUN: "yellow",
    Verdict.NOT_HERE: "dim",
}
HEADINGS = ("experiment", "the paper's", "ours", "limit", "verdict", "unexplained", "time")
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def number(value: float, unit: str) -> str:
    """A value with a prefix, where its unit takes one."""
    if unit == "ratio":
        return f"{value:.3g}"
    if unit not in ("s", "bit/s") or not value:
        return f"{value:.6g} {unit}".removesuffix(" count")
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def figure(one: Interval, time_scale: float) -> str:
    """A figure: its median, the range and how sure that is, and what it stands for."""
    text = f"{one.name}: {number(one.median, one.unit)}"
    if one.count > 1:
        spread = f"{number(one.low, one.unit)} to {number(one.high, one.unit)}, " if one.low != one.high else ""
        text += f" ({spread}n = {one.count}, {one.confidence:.0%})" if spread else f" (n = {one.count})"
    scaled = one.scaled(time_scale)
    return text if scaled is None else f"{text} [stands for {number(scaled, one.unit)}]"


def cells(row: Row) -> tuple[str, ...]:
    """One row, as text, a line for each figure."""
    one = row.experiment
    paper = one.paper + (f" (cluster {one.cluster})" if one.cluster else "")
    ours = "\n".join(figure(each, row.time_scale) for each in row.figures)
    verdict = f"{row.verdict}: {row.why}" if row.why else str(row.verdict)
    here = row.verdict is not Verdict.NOT_HERE
    unexplained = "" if not here else "unknown" if row.unexplained is None else str(row.unexplained)
    return f"{one.id}: {one.what}", paper, ours, one.limit, verdict, unexplained, f"{row.seconds:.0f} s" if here else ""


def markdown(table: Sequence[Row], facts: Sequence[str]) -> str:
    """The table as a document, with the facts of the run in front of it."""
    lines = ["# Results of a qualification", "", "[How it judges](qualification.md).", ""]
    lines += [f"- {fact}" for fact in (*facts, counts(table))] + [
        "",
        f"| {' | '.join(HEADINGS)} |",
        "|" + "---|" * len(HEADINGS),
    ]
    for row in table:
        escaped = [cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells(row)]
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines) + "\n"


def show(table: Sequence[Row], console: Console) -> None:
    """The table on a terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(show_lines=True)
    for heading in HEADINGS:
        made.add_column(heading, overflow="fold")
    for row in table:
        *first, verdict, unexplained, seconds = cells(row)
        coloured = Text(verdict, style=_COLOURS[row.verdict])
        made.add_row(*(Text(cell) for cell in first), coloured, Text(unexplained), Text(seconds))
    console.print(made)


def counts(table: Sequence[Row]) -> str:
    """How many experiments came to what."""
    return ", ".join(
        f"{number} {verdict}" for verdict in Verdict if (number := sum(row.verdict is verdict for row in table))
    )
