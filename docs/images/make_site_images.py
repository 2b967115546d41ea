"""Make the pictures of a published site, docs/images/{index,run,compare,trend}.png.

``python docs/images/make_site_images.py`` builds a site of simulated nights first; with SITE it draws that one. Needs a
Chromium or Chrome on PATH; nothing is fetched from a network.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click
from make_report_image import take_picture

from testbed.errors import BedError, UsageError

_HERE = Path(__file__).resolve().parent
_SIZES = {"index": "1240,1010", "run": "1240,820", "compare": "1240,1130", "trend": "1240,820"}


@click.command(help=__doc__)
@click.argument("site", type=click.Path(path_type=Path), required=False)
def main(site: Path | None) -> None:
    """Draw the front page, the newest run, what differs from the one before, and a trend that turned worse."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            _draw(site.absolute() if site else _simulated(Path(folder) / "site"))
    except BedError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


def _simulated(site: Path) -> Path:
    command = [sys.executable, "-m", "tests.unit.reports.demo_site", str(site)]
    subprocess.run(command, cwd=_HERE.parents[1], check=True)
    return site


def _draw(site: Path) -> None:
    runs = sorted(site.glob("runs/*/index.html"))
    trends = [page for page in sorted(site.glob("trends/*.html")) if page.stem.isdigit()]
    worse = next((page for page in trends if "✕ worse" in page.read_text(encoding="utf-8")), None)
    if not runs or worse is None:
        raise UsageError("nothing to draw", where=str(site), expected="runs, and a change for the worse")
    pages = {
        "index": site / "index.html",
        "run": runs[-1],
        "compare": runs[-1].with_name("compare.html"),
        "trend": worse,
    }
    for name, page in pages.items():
        take_picture(page, _HERE / f"{name}.png", _SIZES[name])
        click.echo(f"{name}.png: {(_HERE / f'{name}.png').stat().st_size} bytes")


if __name__ == "__main__":
    main()
