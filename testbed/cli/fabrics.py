"""``testbed up``, ``status`` and ``down``: fabrics that outlive a command."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.common import age, console, fabric_name, json_option, pick, require_linux, write_json
from testbed.cli.heal import look_after
from testbed.errors import BedError, InfrastructureError, UsageError

if TYPE_CHECKING:
    from testbed.lab import Lab


@click.command()
@click.argument("lab", default="laptop")
@click.option("--name", callback=fabric_name, help="What the fabric is called; by default as its lab.")
@json_option
def up(lab: str, name: str | None, as_json: bool) -> None:
    """Build the fabric of LAB (a shipped lab, or a file; default: laptop) and leave it running."""
    require_linux()
    from testbed.lab import Lab

    loaded = Lab.load(lab)
    look_after()
    label = name if name is not None else loaded.name
    started = time.monotonic()
    _build(loaded, label)
    seconds = time.monotonic() - started
    topology = loaded.topology
    facts = {
        "name": label,
        "lab": loaded.name,
        "hosts": len(topology.hosts),
        "switches": len(topology.switches),
        "links": len(topology.links),
        "seconds": round(seconds, 3),
    }
    if as_json:
        write_json(facts)
        return
    click.echo(
        f"{label} is up: {facts['hosts']} hosts, {facts['switches']} switches, {facts['links']} links, "
        f"read back and as planned, in {seconds:.2f} s"
    )
    one, other = topology.hosts[0], topology.hosts[-1]
    which = f" --fabric {label}"
    click.echo("next:")
    for command, what in (
        (f"testbed ping {one} {other}{which}", "probe its paths, hop by hop"),
        (f"testbed shell {one}{which}", "a shell on a host"),
        (f"testbed fault reboot {topology.switches[-1]}{which}", "break something, and heal it"),
        (f"testbed down {label}", "end it"),
    ):
        click.echo(f"  {command:<50}  {what}")


def _build(lab: Lab, name: str) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from testbed.fabric.netns.fabric import bring_up

    columns = (TextColumn("{task.description:<7}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    terminal = console(stderr=True)
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done, total=total)

        bring_up(lab, name=name, progress=show).detach()


@click.command()
@click.argument("name", required=False)
@json_option
def status(name: str | None, as_json: bool) -> None:
    """List the running fabrics of this user, or only NAME, with what is changed and what runs on them."""
    require_linux()
    from testbed.fabric.netns.client import running_fabrics

    names = [pick(name)] if name is not None else running_fabrics()
    found = [facts for each in names if (facts := describe(each)) is not None]
    if as_json:
        write_json({"fabrics": found})
    elif not found:
        click.echo("no fabric is running")
    else:
        _show(found)


def describe(name: str) -> dict[str, Any] | None:
    """What there is to say of a running fabric, JSON-serialisable; None if it has just ended.

    ``state`` is ``building``, ``unknown`` (with a ``reason``), ``pristine``, ``changed`` (with ``changes`` in force or
    ``differences`` from its plan, lines of ``fabric.check()``) or ``unhealed``.
    """
    from testbed.fabric.netns import inside
    from testbed.fabric.netns.client import KeeperClient
    from testbed.fabric.netns.fabric import attach

    try:
        with closing(KeeperClient.connect(name)) as client:
            keeper, told = client.keeper_pid, client.status()
            facts: dict[str, Any] = {"name": name, "detached": client.facts["detached"], "age_s": inside.age_s(keeper)}
        if "lab" not in told["notes"]:
            return {**facts, "state": "building"}
    except (InfrastructureError, OSError):
        return None
    try:
        fabric = attach(name)
    except InfrastructureError as error:
        return {**facts, "state": "unknown", "reason": error.message}
    with closing(fabric.client):
        differences = fabric.check()
        state = "changed" if told["changes"] or differences else "pristine"
        topology = fabric.lab.topology
        return {
            **facts,
            "state": "unhealed" if told["unhealed"] else state,
            "lab": fabric.lab.name,
            "hosts": len(topology.hosts),
            "switches": len(topology.switches),
            "keeper": keeper,
            "runner": None if facts["detached"] else told["notes"].get("runner"),
            "changes": told["changes"],
            "unhealed": told["unhealed"],
            "differences": differences,
            "processes": [
                {"pid": process.pid, "node": process.node, "argv": list(process.argv)}
                for process in inside.processes(keeper, fabric.plan.namespaces)
            ],
        }


def _show(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("fabric", "lab", "age", "nodes", "processes", "state"):
        table.add_column(column, no_wrap=column != "state")
    for facts in found:
        if "lab" not in facts:
            reason = f": {facts['reason']}" if "reason" in facts else ""
            table.add_row(facts["name"], "", age(facts["age_s"]), "", "", facts["state"] + reason)
            continue
        nodes = f"{facts['hosts']} hosts, {facts['switches']} switches"
        held = "" if facts["detached"] else f", ends with process {facts['runner']}"
        processes = str(len(facts["processes"]))
        table.add_row(facts["name"], facts["lab"], age(facts["age_s"]), nodes, processes, facts["state"] + held)
    terminal = console()
    terminal.print(table)
    for facts in found:
        for what in ("changes", "unhealed", "differences"):
            lines = facts.get(what, [])
            for line in lines[:_SHOWN]:
                click.echo(f"{facts['name']}: {_SINGULAR[what]}: {line}")
            if len(lines) > _SHOWN:
                click.echo(f"{facts['name']}: and {len(lines) - _SHOWN} more {what}; --json has all")
        for process in facts.get("processes", []):
            click.echo(f"{facts['name']}: {process['node'] or '-'}: {process['pid']} {' '.join(process['argv'])[:90]}")


_SHOWN = 10
_SINGULAR = {"changes": "in force", "unhealed": "unhealed", "differences": "not as planned"}


@click.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="End all fabrics of this user that outlive their command.")
def down(name: str | None, every: bool) -> None:
    """End the fabric NAME, or the only one running. Nothing of it remains."""
    require_linux()
    if every and name is not None:
        raise UsageError("a name and --all exclude each other", found=name)
    if not every:
        _end(pick(name))
        return
    from testbed.fabric.netns.client import running_fabrics

    names = running_fabrics()
    failed: BedError | None = None
    for each in names:
        try:
            _end(each, only_detached=True)
        except BedError as error:
            failed = error
            for line in error.lines():
                click.echo(line, err=True)
    if failed is not None:
        click.get_current_context().exit(int(failed.exit_code))
    if not names:
        click.echo("no fabric is running")


def _end(name: str, *, only_detached: bool = False) -> None:
    from testbed.fabric.netns.client import KeeperClient

    client = KeeperClient.connect(name)
    if only_detached and not client.facts["detached"]:
        runner = client.status()["notes"].get("runner")
        client.close()
        click.echo(f"{name} is left alone: it ends with process {runner}")
        return
    client.end()
    click.echo(f"{name} has ended")
