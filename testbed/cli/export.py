"""``testbed export``: a run as metrics for Prometheus."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--textfile", type=click.Path(path_type=Path), help="Write for the node exporter's textfile collector.")
@click.option("--push", "url", metavar="URL", help="Push to a Pushgateway.")
def export(run: Path, textfile: Path | None, url: str | None) -> None:
    """Tell what RUN, a run file, result file or folder, came to as metrics; printed where nothing else is asked for.

    Exit codes: 0 done; 2 what you gave cannot be used; 4 it cannot be written, or nobody answers.
    """
    from testbed_reports.prometheus import as_text, metrics_of, push, write_textfile
    from testbed_reports.sources import read_source

    source = read_source(run)
    registry = metrics_of(source)
    if textfile is not None:
        write_textfile(registry, textfile)
    if url is not None:
        push(registry, url, source.run.runner)
    if textfile is None and url is None:
        click.echo(as_text(registry).decode(), nl=False)
