"""``testbed watch``: a running fabric as it is, second by second: planes, flows, faults."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import click

from testbed.cli.common import Duration, attached, console, fabric_option
from testbed.errors import InfrastructureError

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    from testbed.live.watching import Look, Rates, Watching


@click.command()
@fabric_option
@click.option("--every", type=Duration(), default=1.0, help="How often to look. Default: 1s.")
@click.option("--for", "seconds", type=Duration(), help="How long, such as 10s or 5min. Default: until Ctrl-C.")
@click.option(
    "--flows", type=click.IntRange(0, 10_000), default=12, show_default=True, help="Show the busiest so many."
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON each time, for programs.")
def watch(fabric: str | None, every: float, seconds: float | None, flows: int, as_json: bool) -> None:
    """Show what goes on on a running fabric: each plane's packets, goodput, loss, reordering and EVs, flows, faults.

    Counters of ports are there for any workload; goodput, loss, reordering, EVs and flows for path probes and MRC
    transfers, of whatever process of yours. Looking changes nothing. Ends with the fabric, or on Ctrl-C.
    """
    from testbed.live.watching import Watching

    found = attached(fabric)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    end = None if seconds is None else time.monotonic() + seconds
    try:
        watching = Watching(found)
        looks = _looks(watching, stopped, max(every, 0.1), end)
        if as_json:
            for look in looks:
                click.echo(json.dumps(look.as_json(), ensure_ascii=False))
        else:
            _show(looks, flows)
    except InfrastructureError:
        if found.name in _running():
            raise
        click.echo(f"{found.name} has ended", err=True)
    finally:
        with suppress(InfrastructureError):
            found.client.close()


def _running() -> list[str]:
    from testbed.fabric.netns.client import running_fabrics

    return running_fabrics()


def _looks(watching: Watching, stopped: threading.Event, every: float, end: float | None) -> Iterator[Look]:
    """A look each time, until it is over."""
    while True:
        left = every if end is None else min(every, end - time.monotonic())
        if left <= 0 or stopped.wait(left):
            return
        yield watching.look()


def _show(looks: Iterator[Look], flows: int) -> None:
    """One picture that follows on a terminal; one after the other elsewhere."""
    from rich.live import Live

    screen = console()
    if not screen.is_terminal:
        for look in looks:
            screen.print(_picture(look, flows))
        return
    with Live(console=screen, auto_refresh=False, transient=False) as live:
        for look in looks:
            live.update(_picture(look, flows), refresh=True)


def _picture(look: Look, flows: int) -> Group:
    from rich.console import Group
    from rich.text import Text

    at = datetime.fromtimestamp(look.t).astimezone().strftime("%H:%M:%S")
    what = ", ".join(f"{number} {kind}" for kind, number in sorted(look.workloads.items())) or "no workload that tells"
    parts: list[RenderableType] = [Text(f"{at}  {look.fabric} ({look.lab}): {what}"), _planes(look)]
    if look.flows and flows:
        parts.append(_flows(look, flows))
    parts += [Text(f"in force: {line}", style="yellow") for line in look.faults]
    parts += [Text(f"unhealed: {line}", style="bold red") for line in look.unhealed]
    parts += [Text(f"ended: {number} {role}", style="bold red") for role, number in sorted(look.ended.items())]
    if not look.faults and not look.unhealed:
        parts.append(Text("no fault in force", style="green"))
    return Group(*parts)


def _planes(look: Look) -> Table:
    table = _table("plane", "sent/s", "received/s", "goodput", "loss", "reordered", "EVs")
    for plane, rates in look.planes.items():
        evs = ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in rates.evs.items() if number)
        figures = (_count(rates.sent), _count(rates.received), *_figures(rates))
        table.add_row(str(plane), *figures, evs)
    return table


def _flows(look: Look, most: int) -> Table:
    table = _table("flow", "sent/s", "received/s", "goodput", "loss", "reordered", "workload")
    busiest = sorted(look.flows.items(), key=lambda item: -item[1].offered)
    for (workload, flow), rates in busiest[:most]:
        table.add_row(flow, _count(rates.offered), _count(rates.arrived), *_figures(rates), workload)
    if len(busiest) > most:
        table.caption = f"and {len(busiest) - most} more flows"
        table.caption_justify = "left"
    return table


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if 0 < number < len(columns) - 1 else "left", no_wrap=True)
    return table


def _figures(rates: Rates) -> tuple[Text | str, ...]:
    from rich.text import Text

    from testbed.lab.quantities import format_rate

    goodput = "" if rates.goodput is None else format_rate(float(f"{rates.goodput:.3g}"))
    loss = Text(_ratio(rates.loss), style="bold red" if rates.loss else "")
    return goodput, loss, _ratio(rates.reordering)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _count(value: float) -> str:
    return f"{value:,.0f}"
