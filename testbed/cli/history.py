"""``testbed history`` and ``testbed compare``: every run that was kept, and two of them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from testbed.cli.common import console, json_option, write_json
from testbed.cli.report import history_option, open_history

if TYPE_CHECKING:
    from testbed_reports.comparison import Figures

    from testbed.measure.run import RunRecord


@click.group()
def history() -> None:
    """Keep runs in a database, and list them."""


@history.command()
@click.argument("places", type=click.Path(path_type=Path), nargs=-1, required=True)
@history_option
def add(places: tuple[Path, ...], place: str | None) -> None:
    """Keep every run at PLACES: run files, result files, or folders with any number of them.

    A run that is kept already is left as it is. Exit code 2 where a file could not be read; the others are kept.
    """
    from testbed_reports.sources import find_sources, read_source

    from testbed.errors import ExitCode
    from testbed.measure.resultfile import ResultFileError

    files = [file for given in places for file in (find_sources(given) if given.is_dir() else [given])]
    added = known = 0
    wrong: list[ResultFileError] = []
    with open_history(place) as kept:
        for file in files:
            try:
                source = read_source(file)
            except ResultFileError as error:
                wrong.append(error)
                continue
            if kept.add(source):
                added += 1
            else:
                known += 1
    click.echo(f"{added} runs added, {known} were there already" + (f", {len(wrong)} unreadable" if wrong else ""))
    for unreadable in wrong[:10]:
        for line in unreadable.lines():
            click.echo(line, err=True)
    if wrong:
        raise SystemExit(int(ExitCode.USAGE))


@history.command(name="list")
@click.option("-n", "most", type=click.IntRange(1, 100_000), default=30, show_default=True, help="The newest so many.")
@history_option
@json_option
def list_(most: int, place: str | None, as_json: bool) -> None:
    """List runs, the newest first."""
    from rich.table import Table
    from rich.text import Text
    from testbed_reports.display import SIGNS, count

    from testbed.measure.result_parts import Verdict

    with open_history(place) as kept:
        runs = kept.runs(most)
    names = ("id", "suite", "runner", "verdict", "tests", "passed", "failed", "unknown", "not_run", "unexplained")
    if as_json:
        rows = [{name: getattr(run, name) for name in names} | {"created": run.created.isoformat()} for run in runs]
        write_json(rows)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("run", "began", "verdict", "pass", "fail", "unknown", "not run", "suite"):
        table.add_column(heading)
    for run in runs:
        sign, word = SIGNS[Verdict(run.verdict)]
        counts = (count(value) for value in (run.passed, run.failed, run.unknown, run.not_run))
        cells = (run.id, f"{run.created:%Y-%m-%d %H:%M}", f"{sign} {word}", *counts, run.suite)
        table.add_row(*(Text(cell) for cell in cells))
    console().print(table)


@click.command()
@click.argument("before")
@click.argument("now")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page there too.")
@history_option
@json_option
def compare(before: str, now: str, html: Path | None, place: str | None, as_json: bool) -> None:
    """Compare two runs, the earlier first: files, folders, or ids of the history.

    Exit codes: 0 nothing is worse; 1 something is newly not run or newly failing; 2 a run cannot be read.
    """
    from testbed_reports.compare_page import as_json as for_programs
    from testbed_reports.compare_page import print_compare, render_compare
    from testbed_reports.comparison import compare as side_by_side
    from testbed_reports.frame import write_page_file

    (one, measured_then), (other, measured_now) = _run(before, place), _run(now, place)
    found = side_by_side(one, other)
    if html is not None:
        write_page_file(html, render_compare(found, measured_then, measured_now))
    if as_json:
        write_json(for_programs(found, measured_then, measured_now))
    else:
        print_compare(found, measured_then, measured_now, console())
    raise SystemExit(1 if found.not_run or found.failing else 0)


def _run(named: str, place: str | None) -> tuple[RunRecord, Figures]:
    """A run and its figures, from a path if there is one of that name, else from the history."""
    from testbed_reports.sources import figures_of, read_source

    if Path(named).exists():
        source = read_source(Path(named))
        return source.run, figures_of(source)
    with open_history(place) as kept:
        return kept.run(named), kept.figures(named)
