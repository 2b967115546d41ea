"""A result on a terminal: the same numbers as its page, in the same words."""

from __future__ import annotations

import shlex

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from testbed.measure.result import Result
from testbed.measure.result_parts import LedgerRecord, Verdict
from testbed_reports.display import NOT_MEASURED, SIGNS, count, figure_text, limit_text, resolution_text
from testbed_reports.grouping import grouped
from testbed_reports.summary import headlines, read_lab

_STYLES = {"pass": "green", "fail": "bold red", "unknown": "yellow", "not_run": "yellow", "plain": ""}


def print_summary(result: Result, console: Console | None = None) -> None:
    """Print the summary of a result; rich leaves out colours for pipes and where ``NO_COLOR`` is set.

    The command that runs it again is one line however narrow the terminal is, so that it can be copied.
    """
    console = console or Console()
    console.print(summary(result))
    console.print(Text.assemble(("again  ", "dim"), shlex.join(result.command)), soft_wrap=True)


def summary(result: Result) -> RenderableType:
    """Verdict, headline figures, limits and planes."""
    lab, _ = read_lab(result)
    scale = lab.time_scale if lab else 1.0
    parts: list[RenderableType] = [_verdict(result, lab.name if lab else "unknown"), _headlines(result, scale)]
    if not result.samples:
        parts.append(Text("? samples missing: the figures cannot be checked and count as unknown", style="yellow"))
    parts += [
        Text(
            f"! {fault.kind} of {fault.subject} {'may not be' if fault.healed is None else 'is not'} undone", "bold red"
        )
        for fault in result.unhealed_faults
    ]
    if result.judgements:
        parts.append(_limits(result))
    planes = grouped(result.figures).planes
    if planes.rows:
        parts.append(_planes(result))
    if result.ledger is not None:
        parts.append(_ledger(result, result.ledger))
    elif result.drops:
        parts.append(_drops(result))
    return Group(*parts)


def _outcome(verdict: Verdict) -> Text:
    sign, word = SIGNS[verdict]
    return Text(f"{sign} {word}", _STYLES[verdict.value])


def _verdict(result: Result, lab: str) -> Text:
    sign, word = SIGNS[result.verdict]
    style = _STYLES[result.verdict.value]
    out = Text.assemble((f"{sign} {word.upper()}", style), "  ", (result.title, "bold"))
    if result.reason:
        out.append(f"\n{result.reason}")
    out.append(
        f"\nlab {lab}, realised as {result.realised}, {result.created:%Y-%m-%d %H:%M:%S} UTC, {result.id}", "dim"
    )
    return out


def _table(*columns: str) -> Table:
    """A table whose columns are text, or numbers where the heading ends in ``>``."""
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        out.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
    return out


def _headlines(result: Result, scale: float) -> Table:
    out = _table("figure", "value>", "stands for>" if scale != 1 else "", "samples and resolution", "")
    for headline in headlines(result, scale):
        sign, word = ("", "") if headline.state == "plain" else SIGNS[Verdict(headline.state)]
        state = Text(f"{sign} {word}", _STYLES[headline.state])
        out.add_row(
            Text(headline.label),
            Text(headline.value, _STYLES[headline.state] if headline.state in ("fail", "unknown") else "bold"),
            Text(headline.stands_for),
            Text(headline.about, "dim"),
            state,
        )
    return out


def _limits(result: Result) -> Table:
    out = _table("outcome", "limit", "of", "measured>", "samples>", "resolution>")
    for judgement in result.judgements:
        figure = None if judgement.figure is None else result.figures[judgement.figure]
        out.add_row(
            _outcome(judgement.outcome),
            Text(limit_text(judgement.limit)),
            Text(figure.scope if figure else judgement.limit.scope),
            Text(figure_text(figure) if figure else "not measured"),
            Text(count(figure.samples) if figure else "–"),
            Text(resolution_text(figure) if figure else "–"),
        )
    return out


_PLANE_COLUMNS = ("sent", "lost", "reordered_ratio", "outage", "delay_p50", "delay_p99", "goodput")


def _planes(result: Result) -> Table:
    """Planes as rows: a terminal is narrower than a page."""
    found: dict[str, dict[str, str]] = {}
    for figure in result.figures:
        words = figure.scope.split()
        if len(words) == 2 and words[0] == "plane" and figure.name in _PLANE_COLUMNS:
            found.setdefault(words[1], {})[figure.name] = figure_text(figure, bare=True)
    names = [name for name in _PLANE_COLUMNS if any(name in row for row in found.values())]
    out = _table("plane", *(name.replace("_", " ") + ">" for name in names))
    for plane, row in found.items():
        out.add_row(Text(plane), *(Text(row.get(name, "–")) for name in names))
    return out


def _ledger(result: Result, ledger: LedgerRecord) -> RenderableType:
    """A few lines: what was sent, what came, each place, and what is left."""
    out = _table("ledger", "packets>", "")
    out.add_row(Text("sent"), Text(count(ledger.sent)), Text(""))
    out.add_row(Text("delivered"), Text(count(ledger.delivered)), Text(""))
    drops = sorted((drop for drop in result.drops if drop.packets), key=lambda drop: -drop.packets)
    for drop in drops[:8]:
        out.add_row(Text(f"  lost at {drop.hop}"), Text(count(drop.packets)), Text(drop.cause, "dim"))
    if len(drops) > 8:
        rest = sum(drop.packets for drop in drops[8:])
        out.add_row(Text(f"  lost at {len(drops) - 8} more places"), Text(count(rest)), Text(""))
    if ledger.in_flight:
        out.add_row(Text("in flight"), Text(count(ledger.in_flight)), Text(""))
    if ledger.others_sent:
        about = Text("on the fabric, and not of this workload", "dim")
        out.add_row(Text("others' packets"), Text(count(ledger.others_sent)), about)
    packets = result.unexplained_packets
    value = NOT_MEASURED if packets is None else count(packets)
    style = "yellow" if packets is None else "bold red" if packets else "bold"
    places = "; ".join(f"{one.place}: {one.packets}" for one in ledger.remainders[:4])
    out.add_row(Text("unexplained"), Text(value, style), Text(ledger.unknown or places, "dim"))
    return out


def _drops(result: Result) -> Table:
    out = _table("packets lost at", "cause", "packets>")
    drops = sorted((drop for drop in result.drops if drop.packets), key=lambda drop: -drop.packets)
    for drop in drops[:8]:
        out.add_row(Text(drop.hop), Text(drop.cause), Text(count(drop.packets)))
    if len(drops) > 8:
        out.add_row(Text(f"and {len(drops) - 8} more", "dim"))
    return out
