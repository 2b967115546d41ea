"""``testbed transceiver``: the WebRTC transceiver."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from testbed.cli.common import Duration, require_linux, require_voice
from testbed.errors import UsageError


@click.group()
def transceiver() -> None:
    """Run a WebRTC transceiver behind relays."""


@transceiver.command()
@click.option("--listen", metavar="ADDR:PORT", required=True, help="Where relays send to, as their table has it.")
@click.option("--http", metavar="[ADDR]:PORT", default="127.0.0.1:8080", show_default=True, help="Signalling.")
@click.option(
    "--relay", "relays", metavar="ADDR:PORT", required=True, multiple=True, help="A relay's address for clients."
)
@click.option("--cluster", type=click.IntRange(0, 65535), metavar="N", required=True, help="Its cluster …")
@click.option("--number", type=click.IntRange(0, (1 << 24) - 1), metavar="N", required=True, help="… and its number.")
@click.option("--keys", "keys_file", metavar="FILE", required=True, help="The keys, a file that only you may read.")
@click.option("--backend", metavar="URL", required=True, help="ws:// or wss://; `testbed backend echo` is one.")
@click.option("--origin", "origins", metavar="ORIGIN", multiple=True, help="Pages from there may signal; * for all.")
@click.option("--metrics", metavar="[ADDR]:PORT", help="Serve Prometheus metrics there; a bare port is on 127.0.0.1.")
@click.option("--log", metavar="DIR", help="Write what is seen of RTP there.")
@click.option("--calls", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At a time.")
@click.option(
    "--per-source", type=click.IntRange(min=1), default=1000, show_default=True, help="Of one address, by HTTP."
)
@click.option("--setup", type=Duration(), default="30s", show_default=True, help="From the answer to a secure call.")
@click.option(
    "--consent", type=Duration(), default="30s", show_default=True, help="A call ends without a check so long."
)
@click.option("--drain", type=Duration(), default="0s", show_default=True, help="How long calls go on at SIGTERM.")
def run(
    listen: str,
    http: str,
    relays: tuple[str, ...],
    cluster: int,
    number: int,
    keys_file: str,
    backend: str,
    origins: tuple[str, ...],
    metrics: str | None,
    log: str | None,
    calls: int,
    per_source: int,
    setup: float,
    consent: float,
    drain: float,
) -> None:
    """Hold calls until a signal: WebRTC for clients, audio and events for the backend.

    SIGTERM and SIGINT end calls cleanly, SIGHUP takes the keys anew; so does a change of their file.
    """
    require_linux()
    require_voice()
    # Threads of numpy's are of no use here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import asyncio

    from testbed.voice.addresses import Address
    from testbed.voice.transceiver.options import Limits, Options
    from testbed.voice.transceiver.supervisor import Supervisor

    if not backend.startswith(("ws://", "wss://")):
        raise UsageError("this is no backend", where="--backend", found=backend[:60], expected="ws://… or wss://…")
    if metrics is not None and metrics.isdecimal():
        metrics = f"127.0.0.1:{metrics}"
    address = Address.parse(listen, where="--listen", wildcard=True)
    if not any(address.ip):
        raise UsageError(
            "relays know a transceiver by its address",
            where="--listen",
            found=listen,
            expected="the address that their table has",
        )
    options = Options(
        listen=address,
        http=Address.parse(http, where="--http", wildcard=True),
        metrics=Address.parse(metrics, where="--metrics", wildcard=True) if metrics else None,
        relays=tuple(Address.parse(each, where="--relay") for each in relays),
        cluster=cluster,
        transceiver=number,
        keys=Path(keys_file),
        backend=backend,
        origins=origins,
        log=Path(log) if log else None,
        limits=Limits(calls, per_source, setup, consent, drain),
    )

    async def transceive() -> int:
        return await Supervisor(options, lambda line: click.echo(line, err=True)).run()

    sys.exit(asyncio.run(transceive()))
