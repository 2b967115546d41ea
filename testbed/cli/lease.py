"""``testbed lease``: whose the rigs are, for people at a keyboard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from testbed.cli.common import Duration, age, console, json_option, write_json

if TYPE_CHECKING:
    from testbed.lab.inventory import Device
    from testbed.leases import Leases, RigFacts

database_option = click.option(
    "--database",
    metavar="URL",
    help="sqlite:////PATH or postgresql://USER@HOST/NAME; by default $TESTBED_LEASES, else a file of this user.",
)


@click.group()
def lease() -> None:
    """Take a rig of real devices, give it back, see whose it is."""


@lease.command(name="list")
@database_option
@json_option
def list_rigs(database: str | None, as_json: bool) -> None:
    """List every rig that is known: whose it is, until when, who waits for it."""
    found = _leases(database).list()
    if as_json:
        write_json({"rigs": [dataclasses.asdict(rig) for rig in found]})
    elif not found:
        click.echo("no rig is known; a rig is known from its first lease on")
    else:
        _show(found)


@lease.command()
@click.argument("rigs", nargs=-1, required=True, metavar="RIG...")
@database_option
@click.option("--for", "lasting", type=Duration(), default=3600.0, help="How long it is yours (1h).")
@click.option("--wait", type=Duration(), default=0.0, help="How long to queue for it (not at all).")
@click.option("--purpose", default="", help="What for; others are shown it.")
@json_option
def take(rigs: tuple[str, ...], database: str | None, lasting: float, wait: float, purpose: str, as_json: bool) -> None:
    """Take RIG, or several of them together: all or none. A rig is named by its lab's `name`, or by its lab file.

    Its devices have to answer: those of the lab file, or those that its last good check had.
    """
    from testbed.fabric.rig.gate import require_answers

    leases = _leases(database)
    known: dict[str, Iterable[Device]] = {}
    names = [_named(rig, known) for rig in rigs]
    taken = leases.take(names, ttl_s=lasting, wait_s=wait, purpose=purpose)
    try:
        require_answers(leases, taken, known)
    except BaseException:
        leases.release(taken.id)
        raise
    if as_json:
        write_json(dataclasses.asdict(taken))
    else:
        click.echo(f"lease {taken.id}: {', '.join(taken.tokens)}, for {age(lasting)}")


@lease.command()
@click.argument("name", metavar="LEASE")
@database_option
@click.option("--force", is_flag=True, help="Though it is somebody else's: whoever has it touches nothing any more.")
def release(name: str, database: str | None, force: bool) -> None:
    """Give back LEASE, by its id or by the name of one of its rigs."""
    from testbed.errors import UsageError
    from testbed.leases.store import of_this_user

    leases = _leases(database)
    found = leases.find(name)
    if not force and not of_this_user(found.owner):
        raise UsageError("this lease is somebody else's", found=found.owner, remedy="ask, or use --force")
    click.echo(f"given back: {', '.join(leases.release(found.id))}")


@lease.command()
@click.argument("rig")
@click.argument("health", type=click.Choice(["healthy", "unhealthy"]))
@click.option("--reason", default="", help="Why it is not handed out.")
@database_option
def mark(rig: str, health: str, reason: str, database: str | None) -> None:
    """Say that RIG is fit to be handed out, or is not."""
    _leases(database).mark(rig, healthy=health == "healthy", reason=reason or "marked by hand")
    click.echo(f"{rig}: {health}")


def _named(rig: str, known: dict[str, Iterable[Device]]) -> str:
    """The name of a rig; its devices are noted where it is given as a lab file."""
    from pathlib import Path

    if not Path(rig).is_file():
        return rig
    from testbed.lab import Lab
    from testbed.lab.inventory import devices

    lab = Lab.load(rig)
    known[lab.name] = devices(lab).values()
    return lab.name


def _leases(database: str | None) -> Leases:
    from testbed.leases import Database, Leases

    return Leases(Database(database))


def _show(found: list[RigFacts]) -> None:
    from rich.table import Table

    table = Table(box=None)
    for title in ("rig", "health", "held by", "for", "left", "to undo", "waiting"):
        table.add_column(title)
    for rig in found:
        health = rig.health if not rig.reason or rig.health == "healthy" else f"{rig.health}: {rig.reason}"
        left = "" if rig.lease is None else age(rig.left_s) if rig.left_s else "expired"
        undo = str(rig.to_undo) if rig.to_undo else ""
        table.add_row(rig.name, health, rig.owner, rig.purpose, left, undo, ", ".join(rig.waiting))
    console().print(table)
