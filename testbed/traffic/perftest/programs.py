"""The two programs' entry points."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from testbed.errors import UsageError
from testbed.traffic.perftest import output
from testbed.traffic.perftest.options import Options, Tool, run_program

_TERMINATED = 128 + signal.SIGTERM


def write_bw() -> NoReturn:
    """``mrc_write_bw``."""
    run_program(Tool.WRITE_BW, run)


def write_lat() -> NoReturn:
    """``mrc_write_lat``."""
    run_program(Tool.WRITE_LAT, run)


def run(options: Options) -> None:
    """Measure as the options say, and print what perftest prints. Raises BedError."""
    # A socket in the fabric's directory is to go with its server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    # The NIC is imported here: neither help nor a wrong option needs it.
    from testbed.traffic.perftest import bandwidth, latency
    from testbed.traffic.perftest.session import session

    bandwidth_test = options.tool is Tool.WRITE_BW
    if bandwidth_test and not options.peak:
        click.echo(output.NO_PEAK)
    reports: list[output.Report] = []

    def tell(report: output.Report, each: Sequence[float] = ()) -> None:
        if options.histogram:
            lines = output.histogram(each if options.histogram == "unsorted" else sorted(each))
            click.echo("\n".join([*lines, *output.table_head(options)]))
        click.echo(output.row(report, gigabits=options.gigabits))
        reports.append(report)

    with session(options, click.echo) as connected:
        if bandwidth_test:
            bandwidth.run(connected, tell)
        else:
            latency.run(connected, tell)
        click.echo(output.LINE)
    if options.json_file is not None:
        _save(options.json_file, output.as_json(options, connected.mtu, reports[-1]))


def _save(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError("the report cannot be saved", where=path, found=error.strerror or str(error)) from error
