"""``testbed doctor``: what this machine can and cannot do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.common import console, json_option, require_linux, write_json
from testbed.errors import ExitCode

if TYPE_CHECKING:
    from testbed.fabric.netns.doctor.findings import Finding


@click.command()
@json_option
@click.option("--calibrate", "measure", is_flag=True, help="Also measure packets/s through three switches, for 3 s.")
def doctor(as_json: bool, measure: bool) -> None:
    """Tell what this machine can and cannot do, why, and what would help. Everything is tried, nothing is left.

    Exits with 0 when fabrics of namespaces can run here, else with 4.
    """
    require_linux()
    from testbed.fabric.netns.doctor.findings import can_run
    from testbed.fabric.netns.doctor.rate import calibrate
    from testbed.fabric.netns.doctor.visit import examine

    findings = examine()
    runs = can_run(findings)
    measured: dict[str, Any] | None = None
    if measure and runs:
        result = calibrate()
        measured = {
            **asdict(result),
            "packets_per_s": result.packets_per_s,
            "advised_packets_per_s": result.advised_packets_per_s,
        }
    if as_json:
        told = {"can_run": runs, "findings": [asdict(finding) for finding in findings], "calibration": measured}
        write_json(told)
    else:
        _show(findings, runs)
        if measured is not None:
            _show_rate(measured)
        elif measure:
            click.echo("not calibrated: no fabric can run")
    if not runs:
        click.get_current_context().exit(int(ExitCode.INFRASTRUCTURE))


_STYLES = {"ok": "green", "limited": "yellow", "missing": "red", "unknown": "magenta"}


def _show(findings: list[Finding], runs: bool) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("what", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("found", overflow="fold")
    for finding in findings:
        lines = [finding.found]
        lines += [finding.why] if finding.why else []
        lines += [f"→ {finding.remedy}"] if finding.remedy else []
        blocking = finding.needed and finding.status in ("missing", "unknown")
        status = Text(finding.status.value + (" (needed)" if blocking else ""), style=_STYLES[finding.status.value])
        table.add_row(finding.name, status, "\n".join(lines))
    console().print(table)
    click.echo("fabrics of namespaces can run here" if runs else "fabrics of namespaces cannot run here")


def _show_rate(measured: dict[str, Any]) -> None:
    lost = measured["sent"] - measured["arrived"]
    click.echo(
        f"one process got {measured['packets_per_s']:,.0f} packets/s of {measured['payload_bytes']} bytes through "
        f"three switches ({measured['arrived']:,} in {measured['seconds']:.2f} s, {lost:,} lost); "
        f"keep labs below {measured['advised_packets_per_s']:,.0f} packets/s in all"
    )
