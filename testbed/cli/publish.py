"""``testbed publish``: the history of all runs as a static site."""

from __future__ import annotations

from pathlib import Path

import click

from testbed.cli.report import history_option, open_history


@click.command()
@click.argument("out", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--add", "places", type=click.Path(path_type=Path), multiple=True, help="First add the runs there; repeatable."
)
@click.option("--keep", type=click.IntRange(1, 100_000), default=90, show_default=True, help="Runs with own pages.")
@click.option("--verdict", is_flag=True, help="End with the newest run's verdict: 1 fail, 3 unknown, 6 nothing ran.")
@history_option
def publish(out: Path, places: tuple[Path, ...], keep: int, verdict: bool, place: str | None) -> None:
    """Build a static site of the history at DIR: latest, history, trends, runs. Any web server can serve it.

    The site is swapped in one step, and stays as it was when this is killed. DIR is a symbolic link to a folder beside
    it; pages of older runs than --keep are removed, their figures stay in the trends. With --verdict a run in which
    something is newly not run fails.
    """
    from testbed_reports.publishing import publish as build
    from testbed_reports.sources import find_sources, read_source

    from testbed.errors import ExitCode
    from testbed.measure.result_parts import Verdict

    with open_history(place) as history:
        for given in places:
            for file in find_sources(given) if given.is_dir() else [given]:
                history.add(read_source(file))
        done = build(history, out, keep=keep, say=lambda text: click.echo(text, err=True))
    fresh = [one for one in done.told if one.new]
    click.echo(f"Site: {out}/index.html ({done.built} runs built, {done.kept} kept, of {done.gone} the files are gone)")
    for one in fresh[:20]:
        click.echo(
            f"{one.direction}: {one.trend.figure} of {one.trend.key[0]}, {one.change.before:g} → {one.change.after:g} "
            f"{one.trend.unit} (p = {one.change.p_value:.1g})"
        )
    if verdict:
        codes = {Verdict.PASS: ExitCode.PASS, Verdict.FAIL: ExitCode.FAIL, Verdict.UNKNOWN: ExitCode.UNKNOWN}
        raise SystemExit(int(codes.get(done.verdict, ExitCode.NOTHING_RAN)))
