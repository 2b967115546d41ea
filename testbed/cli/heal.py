"""``testbed heal``: put right what processes that died have left broken."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from testbed.cli.common import Duration
from testbed.errors import BedError, ExitCode, InfrastructureError


@click.command()
@click.argument("fabric", required=False)
@click.option("--database", metavar="URL", help="Look after the rigs of this database of leases, and no namespaces.")
@click.option("--watch", type=Duration(), metavar="EVERY", help="Go on doing so for rigs, this often, until Ctrl-C.")
def heal(fabric: str | None, database: str | None, watch: float | None) -> None:
    """Put right what commands and tests that died have left broken, on FABRIC (or rig) or on all.

    Every fault, and every change of a device, is in a journal before it is made. Exit code 5 when something remains,
    which is told.
    """
    if watch is not None:
        _watch(fabric, database, watch)
    rigs = _rigs(fabric, database)
    outcomes = [] if database is not None else look_after(fabric, quiet=bool(rigs))
    if database is not None and not rigs:
        click.echo("nothing was left behind")
    if not all([*rigs, *outcomes]):
        click.get_current_context().exit(int(ExitCode.UNHEALED))


def _rigs(rig: str | None, database: str | None, told: set[str] | None = None) -> list[bool]:
    """Undo what dead runs left on devices; whether each rig is healed. ``told``: lines that are not told again."""
    from testbed.leases.database import default_url

    url = database or default_url()
    path = url.removeprefix("sqlite:///")
    if url.startswith("sqlite") and not Path(path).exists() and database is None:
        return []  # No rig was ever leased here.
    from testbed.fabric.rig.healing import heal as heal_rigs
    from testbed.leases import Database

    with Database(url) as opened:
        outcomes = heal_rigs(opened, rig)
    lines = [line for outcome in outcomes for line in outcome.lines()]
    for line in lines:
        if told is None or line not in told:
            click.echo(line)
    if told is not None:
        told.clear()
        told.update(lines)
    return [outcome.healed for outcome in outcomes]


def _watch(rig: str | None, database: str | None, every: float) -> None:
    """What a reaper does: look after rigs until it is interrupted. A database that is away is waited for."""
    pause, told = threading.Event(), set[str]()
    while True:
        try:
            _rigs(rig, database, told)
        except InfrastructureError as error:
            click.echo(str(error), err=True)
        pause.wait(every)


def look_after(fabric: str | None = None, *, quiet: bool = True) -> list[bool]:
    """Look for what was left behind and put it right; whether each is healed.

    ``quiet``: what a command does first: it says nothing where nothing was left, and no error of it ends the command.
    """
    from testbed.faults.journal import Journal

    try:
        journal = Journal()
        if not journal.left_behind():
            if not quiet:
                click.echo("nothing was left behind")
            return []
        from testbed.fabric.netns.fabric import visiting
        from testbed.faults.heal import heal as carry_out

        outcomes = carry_out(journal, visiting, fabric)
    except BedError as error:
        if not quiet:
            raise
        click.echo(f"what was left behind cannot be looked for: {error.message}", err=True)
        return []
    for outcome in outcomes if not quiet else [outcome for outcome in outcomes if not outcome.ended]:
        for line in outcome.lines():
            click.echo(line, err=quiet)
    if not outcomes and not quiet:
        click.echo("nothing was left behind")
    return [outcome.healed for outcome in outcomes]
