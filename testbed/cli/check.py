"""``testbed check``: whether a rig is as its lab file says, and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from testbed.cli.common import age, console, json_option, write_json
from testbed.errors import ExitCode

if TYPE_CHECKING:
    from testbed.fabric.rig.check.session import Session


@click.command()
@click.argument("lab")
@click.option("--fix", "fixing", is_flag=True, help="Put right what is safe: uSID tables, ports that are set down.")
@click.option("--read-only", is_flag=True, help="Refuse every command that changes a device, as without --fix.")
@click.option("--database", metavar="URL", help="The database of leases, instead of the one that the lab names.")
@json_option
def check(lab: str, fixing: bool, read_only: bool, database: str | None, as_json: bool) -> None:
    """Check the devices of LAB, a lab file with a rig, and send packets over every path.

    Exit code 0: all is as the lab says; 1: something is wrong; 3: something that is needed could not be looked at.
    """
    from testbed.errors import UsageError
    from testbed.fabric.rig.check.session import checked
    from testbed.lab import Lab
    from testbed.leases import Database

    if fixing and read_only:
        raise UsageError("--fix changes devices, and --read-only has none changed", remedy="leave one of them out")
    loaded = Lab.load(lab)
    if loaded.rig is None:
        raise UsageError(
            "this lab names no devices", where=lab, expected="a lab file with a `rig` section", remedy="testbed doctor"
        )
    with Database(database or loaded.rig.leases) as opened:
        session = checked(loaded, opened, fixing=fixing)
    if as_json:
        write_json({**session.report.as_json(), "fixed": list(session.fixed)})
    else:
        _show(session)
    click.get_current_context().exit(int(session.report.exit_code))


def _show(session: Session) -> None:
    report, out = session.report, console()
    for line in session.fixed:
        out.print(f"fixed: {line}")
    _table(
        f"{report.rig}: wrong",
        ("device", "port", "what", "found", "expected", "shown on the device by"),
        [(each.device, each.port, each.aspect, each.found, each.expected, each.command) for each in report.findings],
    )
    if report.since is not None:
        when = f"changed since the last good check, {age(max(0.0, time.time() - report.since))} ago"
        _table(when, ("device", "what", "was", "is"), [(d.device, d.what, d.was, d.now) for d in report.drift])
    # Devices that say the same are one row.
    same: dict[tuple[str, str], list[str]] = {}
    for entry in report.not_checked:
        where = f"{entry.device}:{entry.port}" if entry.port else entry.device
        same.setdefault((entry.aspect, entry.why.replace(entry.device, "it")), []).append(where)
    rows = [(what, _some(where), why) for (what, why), where in same.items()]
    _table("not checked", ("what", "where", "why"), rows)
    verdict = {
        ExitCode.PASS: "as the lab says",
        ExitCode.FAIL: f"{len(report.findings)} things are wrong" if len(report.findings) > 1 else "1 thing is wrong",
        ExitCode.UNKNOWN: "nothing wrong was found, but not everything could be looked at that has to be",
    }[report.exit_code]
    over = f"packets over {report.probed} of {report.paths} paths"
    out.print(f"{report.rig}: {verdict} ({report.devices} devices, {over}, {report.took_s:.1f} s)")


def _some(where: list[str]) -> str:
    return ", ".join(where[:4]) + (f" and {len(where) - 4} more" if len(where) > 4 else "")


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if not rows:
        return
    from rich.table import Table

    table = Table(box=None, title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)
