"""``testbed fault``: break something on a running fabric by hand, and heal it. One command for each kind of fault."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.common import Duration, attached, console, fabric_option, json_option, write_json
from testbed.errors import BedError, InfrastructureError, UnhealedError, nearest

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric
    from testbed.faults.kinds import Kind
    from testbed.faults.parameters import Parameter
    from testbed.faults.scope import FaultScope
    from testbed.record import Event

#: Only who started a process can start it again.
_NOT_BY_HAND = frozenset({"restart"})


def _kinds() -> dict[str, Kind]:
    from testbed.faults.spec import KINDS

    return {name.replace("_", "-"): kind for name, kind in KINDS.items() if name not in _NOT_BY_HAND}


class _Kinds(click.Group):
    """A command for each kind of fault, made of what the kind says of itself, beside those given."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_kinds()])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        kind = _kinds().get(name)
        return super().get_command(ctx, name) if kind is None else _command(name, kind)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            close = nearest(args[0], self.list_commands(ctx))
            ctx.fail(f"No such fault {args[0]!r}." + (f" Did you mean {close!r}?" if close else ""))
        return super().resolve_command(ctx, args)


@click.group(cls=_Kinds)
def fault() -> None:
    """Break something on a running fabric, and heal it.

    The command holds the fault. However the command ends, Ctrl-C or kill -9, the fabric is put back.
    """


def _command(name: str, kind: Kind) -> click.Command:
    from testbed.faults.targets import EXAMPLES

    examples = ", ".join(f"{target} {EXAMPLES[target]}" for target in kind.targets)
    end = " Until Ctrl-C, or for a time." if kind.lasts else ""
    options = [_option(parameter) for parameter in kind.parameters]

    @click.command(name, help=f"{kind.help}{end}\n\nTARGET: {examples}.", short_help=kind.help, params=options)
    @click.argument("target")
    @fabric_option
    @click.option("--for", "seconds", type=Duration(), help="How long, such as 500ms or 5s. Default: until Ctrl-C.")
    def command(target: str, fabric: str | None, seconds: float | None, **given: Any) -> None:
        from testbed.faults.catalogue import Faults
        from testbed.faults.spec import FaultSpec

        parameters = {key: value for key, value in given.items() if value is not None}
        spec = FaultSpec(kind.name, target, parameters).checked()
        found = attached(fabric)
        try:
            _live_through(Faults(found).make(spec), seconds, kind)
        finally:
            found.client.close()

    return command


def _option(parameter: Parameter) -> click.Option:
    words = parameter.help
    if parameter.default is not None:
        words = f"{words}  [default: {parameter.default}]"
    return click.Option(
        [f"--{parameter.name.replace('_', '-')}", parameter.name],
        help=words,
        required=parameter.required,
        metavar="|".join(parameter.choices) or parameter.type.upper(),
    )


def _live_through(scope: FaultScope, seconds: float | None, kind: Kind) -> None:
    """Inject a fault, hold it until it is over or somebody asks for its end, and tell what it did."""
    scope.listen(_phases())
    with _interruptible() as asked:
        scope.when_over(asked.set)
        with scope:
            if seconds is None and kind.lasts:
                click.echo("held until Ctrl-C", err=True)
            asked.wait(seconds)
    for port, packets in scope.counted.items():
        click.echo(f"{port}: {packets} packets")


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set, which then interrupt nothing else.

    A healing that is under way is not cut off by the signal that asked for it; kill -9 leaves it to the keeper.
    """
    asked = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield asked
    except (InfrastructureError, UnhealedError) as error:
        error.remedy = error.remedy or "`testbed status` tells what is not as planned"
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _phases() -> Callable[[Event], None]:
    """Prints each phase as it is reached, with its time since the first."""
    first: list[int] = []

    def show(event: Event) -> None:
        if event.lane == "fault":
            return
        first.append(event.t_ns)
        since = (event.t_ns - first[0]) / 1e6
        took = f" (within {event.uncertainty_ns / 1e6:.3f} ms)" if event.uncertainty_ns else ""
        click.echo(f"{since:10.3f} ms  {event.subject}  {event.what}{took}")

    return show


@fault.command("list")
@fabric_option
@json_option
def list_kinds(fabric: str | None, as_json: bool) -> None:
    """Show every kind of fault, and whether a running fabric can do it."""
    rows = _rows(fabric)
    if as_json:
        write_json({"faults": rows})
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("fault", "of", "does", "here"):
        table.add_column(column, no_wrap=column == "fault")
    for row in rows:
        table.add_row(row["kind"], ", ".join(row["targets"]), row["help"], row["here"])
    console().print(table)


def _rows(fabric: str | None) -> list[dict[str, Any]]:
    from testbed.faults.spec import KINDS

    found: NetnsFabric | None = None
    why = ""
    try:
        found = attached(fabric)
    except BedError as error:
        if fabric is not None:
            raise
        why = error.message
    rows = []
    for kind in KINDS.values():
        reason = why if found is None else found.capabilities.reason_against(kind.needs)
        here = f"unknown: {why}" if found is None else "yes" if reason is None else f"no: {reason}"
        rows.append(
            {
                "kind": kind.name.replace("_", "-"),
                "targets": [str(target) for target in kind.targets],
                "help": kind.help,
                "parameters": [parameter.name.replace("_", "-") for parameter in kind.parameters],
                "needs": kind.needs,
                "here": here,
            }
        )
    if found is not None:
        found.client.close()
    return rows
