"""Make docs/images/report.png from a result file: ``python docs/images/make_report_image.py RESULT``.

Needs a Chromium or Chrome on PATH; nothing is fetched from a network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from testbed_reports.page import write_page

from testbed.errors import BedError, InfrastructureError
from testbed.measure.resultfile import read_result

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    # As on a page of this width, in a smaller picture.
    "--force-device-scale-factor=0.8",
)
_MOST_BYTES = 150_000
_SECONDS = 60


def take_picture(page: Path, picture: Path, size: str) -> None:
    """Draw a page with a headless browser.

    Raises:
        InfrastructureError: there is no browser, it does not draw the page, or the picture is too large.

    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise InfrastructureError(
            "no browser to draw the page with",
            expected=f"one of {', '.join(_BROWSERS)} on PATH",
            remedy="install one, on Debian and Ubuntu with: apt install chromium",
        )
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *_QUIET, f"--user-data-dir={profile}", f"--window-size={size}", f"--screenshot={picture}"]
        try:
            done = subprocess.run([*command, page.as_uri()], capture_output=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise InfrastructureError(f"the browser did not draw the page within {_SECONDS} s", where=browser) from None
    if done.returncode or not picture.is_file():
        found = done.stderr.decode(errors="replace").strip()[-500:]
        raise InfrastructureError("the browser did not draw the page", where=browser, found=found)
    if picture.stat().st_size > _MOST_BYTES:
        raise InfrastructureError(
            "the picture is too large for the documentation",
            where=str(picture),
            found=f"{picture.stat().st_size} bytes",
            expected=f"at most {_MOST_BYTES} bytes",
            remedy="give a smaller --size",
        )


@click.command(help=__doc__)
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).with_name("report.png"))
@click.option("--size", default="1240,1110", help="Width and height in pixels.", show_default=True)
def main(result: Path, out: Path, size: str) -> None:
    """Read the result, write its page, draw it."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            page, picture = Path(folder) / "page.html", Path(folder) / "page.png"
            write_page(read_result(result), page)
            take_picture(page, picture, size)
            shutil.copyfile(picture, out)
    except BedError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
