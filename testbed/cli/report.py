"""``testbed report`` and ``testbed merge``: pages from what runs left, and runs of several runners put together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from testbed_reports.history.store import History
    from testbed_reports.run_report import Earlier
    from testbed_reports.sources import Source

history_option = click.option(
    "--history",
    "place",
    metavar="URL",
    help="Database of runs: a file, or postgresql://… [default: TESTBED_HISTORY, or a file of yours].",
)


def open_history(place: str | None) -> History:
    """The history that ``--history`` names, or the user's own."""
    from testbed_reports.history.database import default_url
    from testbed_reports.history.store import History

    return History.open(place or default_url())


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("report"), show_default=True, help="Folder.")
@click.option("--single", type=click.Path(path_type=Path), help="One self-contained file instead of a folder.")
@click.option("--since", type=click.Path(path_type=Path), help="An earlier run to compare with.")
def report(run: Path, out: Path, single: Path | None, since: Path | None) -> None:
    """Make the report of RUN: a run file, a result file, or a folder with one of them.

    A folder holds the run's page, a page per test, and the files they lead to; --single makes one file to send. Exit
    codes: 0 made; 2 what you gave cannot be read.
    """
    from testbed_reports.frame import write_assets
    from testbed_reports.run_report import write_run_report, write_single
    from testbed_reports.sources import read_source

    source = read_source(run)
    earlier = _earlier(None if since is None else read_source(since))
    if single is not None:
        write_single(source, single, earlier)
        click.echo(f"Page: {single}")
        return
    _require_ours(out)
    write_assets(out)
    write_run_report(source, out, earlier)
    click.echo(f"Page: {out / 'index.html'}")


def _require_ours(out: Path) -> None:
    """Raise UsageError for a folder that holds something else: pages would be mixed into it."""
    from testbed.errors import UsageError

    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "assets").is_dir())):
        raise UsageError(
            "this is no folder of a report", where=str(out), expected="a new or empty folder", remedy="--out DIR"
        )


def _earlier(source: Source | None) -> Earlier:
    from testbed_reports.changes import Since, conditions_of_run
    from testbed_reports.comparison import key
    from testbed_reports.run_report import Earlier
    from testbed_reports.sources import lab_condition

    from testbed.measure.result import Result
    from testbed.measure.result_parts import Verdict

    if source is None:
        return Earlier()
    conditions, passes = conditions_of_run(source.run), {}
    for test in source.run.tests:
        for result in source.results(test):
            if isinstance(result, Result):
                conditions |= lab_condition(result)
                if test.verdict is Verdict.PASS:
                    passes[key(test)] = Since.of(result)
    passed = source.run.verdict is Verdict.PASS
    since = Since(source.run.id, source.run.created, conditions) if passed else None
    return Earlier(source.run, since, passes)


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
def merge(out: Path, runs: tuple[Path, ...]) -> None:
    """Put RUNS of several runners together as one, in the new folder OUT.

    A test that several of them hold is kept once, with the worst verdict and all results.
    """
    from testbed_reports.merging import merge as put_together
    from testbed_reports.sources import read_source

    click.echo(f"Run file: {put_together([read_source(run) for run in runs], out)}")
