"""``testbed backend``: backends for a transceiver's calls."""

from __future__ import annotations

import sys

import click

from testbed.cli.common import require_voice

_listen = click.option(
    "--listen", metavar="[ADDR]:PORT", default="127.0.0.1:8100", show_default=True, help="Where transceivers connect."
)


@click.group()
def backend() -> None:
    """Run what a transceiver hands audio and events to, over WebSocket."""


@backend.command()
@_listen
def echo(listen: str) -> None:
    """Send audio and messages back, until a signal."""
    require_voice()
    from testbed.voice.backend.echo import echo as handler

    _run("echo", handler, listen)


@backend.command()
@_listen
def tone(listen: str) -> None:
    """Play 440 Hz for 20 s; the message stop on a data channel ends it, again begins it anew."""
    require_voice()
    from testbed.voice.backend.tone import tone as handler

    _run("tone", handler, listen)


def _run(name: str, handler: object, listen: str) -> None:
    import asyncio

    from testbed.voice.addresses import Address
    from testbed.voice.backend.server import run

    address = Address.parse(listen, where="--listen", wildcard=True)
    sys.exit(asyncio.run(run(name, handler, address, lambda line: click.echo(line, err=True))))  # type: ignore[arg-type]
