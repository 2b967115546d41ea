"""Make docs/images/run.png and trend.png from a published site: ``python docs/images/make_site_images.py SITE``.

``python -m tests.unit.reports.demo_site SITE`` builds one of simulated nights. Needs a Chromium or Chrome on PATH.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from make_report_image import take_picture

from testbed.errors import BedError, UsageError

_HERE = Path(__file__).parent


@click.command(help=__doc__)
@click.argument("site", type=click.Path(path_type=Path))
def main(site: Path) -> None:
    """Draw the newest run, and the first trend page that tells of something worse."""
    try:
        runs = sorted(site.glob("runs/*/index.html"))
        trends = [page for page in sorted(site.glob("trends/*.html")) if page.stem.isdigit()]
        worse = next((page for page in trends if "✕ worse" in page.read_text(encoding="utf-8")), None)
        if not runs or worse is None:
            raise UsageError("nothing to draw", where=str(site), expected="runs, and a change for the worse")
        take_picture(runs[-1].resolve(), _HERE / "run.png", "1240,820")
        take_picture(worse.resolve(), _HERE / "trend.png", "1240,820")
    except BedError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
