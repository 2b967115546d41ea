"""``testbed fault``: break something on a running fabric by hand, and heal it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from testbed.cli.common import Duration, attached, fabric_option
from testbed.errors import InfrastructureError, UnhealedError

if TYPE_CHECKING:
    from testbed.record import Event


@click.group()
def fault() -> None:
    """Break something on a running fabric, and heal it.

    The command holds the fault. However the command ends, Ctrl-C or kill -9, the fabric is put back.
    """


@fault.command("link-down")
@click.argument("link")
@fabric_option
@click.option("--for", "seconds", type=Duration(), help="How long, such as 500ms or 5s. Default: until Ctrl-C.")
def link_down(link: str, fabric: str | None, seconds: float | None) -> None:
    """Take LINK (h7:p3~p3-t0-1, p3-t0-1~p3-t1-0) down, hold it, bring it up."""
    found = attached(fabric)
    target = found.lab.topology.link(link)
    show = _phases()
    with _interruptible() as stop:
        try:
            show(found.set_link(target, up=False))
            if seconds is None:
                click.echo("held until Ctrl-C", err=True)
            stop(seconds)
        finally:
            show(found.set_link(target, up=True))
    found.client.close()


@fault.command()
@click.argument("switch")
@fabric_option
@click.option("--kind", default="cold", show_default=True, help="The kind of reboot.")
def reboot(switch: str, fabric: str | None, kind: str) -> None:
    """Take SWITCH through the phases of a reboot; how long each takes is in its lab. Ctrl-C cuts it short."""
    found = attached(fabric)
    with _interruptible() as stop:
        found.switch(switch).reboot(kind, _phases(), stop=stop)
    found.client.close()


@contextmanager
def _interruptible() -> Iterator[Callable[[float | None], bool]]:
    """Waits some seconds (None: for ever); True once SIGINT or SIGTERM came, which then interrupt nothing else.

    A healing that is under way is not cut off by the signal that asked for it; kill -9 leaves it to the keeper.
    """
    asked = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield asked.wait
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
        first.append(event.t_ns)
        since = (event.t_ns - first[0]) / 1e6
        took = f" (within {event.uncertainty_ns / 1e6:.3f} ms)" if event.uncertainty_ns else ""
        click.echo(f"{since:10.3f} ms  {event.subject}  {event.what}{took}")

    return show
