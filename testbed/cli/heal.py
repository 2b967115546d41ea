"""``testbed heal``: put right what processes that died have left broken."""

from __future__ import annotations

import click

from testbed.errors import BedError, ExitCode


@click.command()
@click.argument("fabric", required=False)
def heal(fabric: str | None) -> None:
    """Put right what commands and tests that died have left broken, on FABRIC or on all.

    Every fault is in a journal before it is injected. Exit code 5 when something remains, which is told.
    """
    outcomes = look_after(fabric, quiet=False)
    if any(not healed for healed in outcomes):
        click.get_current_context().exit(int(ExitCode.UNHEALED))


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
