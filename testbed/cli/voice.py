"""``testbed voice``: calls to a transceiver."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.common import Duration, json_option, require_linux, require_voice, write_json
from testbed.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from testbed.voice.client.caller import Plan

#: Of a log, by what there is of each: an hour and a half of one call, or a minute of eighty.
_LOG_ROWS = 1 << 19


@click.group()
def voice() -> None:
    """Make WebRTC calls, and check what comes back."""


@voice.command()
@click.argument("url", metavar="URL")
@click.option("--seconds", type=Duration(), default="5s", show_default=True, help="How long, from when it is set up.")
@click.option("--calls", type=click.IntRange(1, 200), default=1, show_default=True, help="At once, in this process.")
@click.option("--setup", type=Duration(), default="20s", show_default=True, help="How long setting up may take.")
@click.option(
    "--expect",
    type=click.Choice(["echo", "tone", "nothing"]),
    default="echo",
    show_default=True,
    help="What has to come back: what was sent, or a tone of 440 Hz.",
)
@click.option(
    "--least", type=click.FloatRange(0, 1), default=0.9, show_default=True, help="The part of it that has to be right."
)
@click.option("--no-data", is_flag=True, help="Without a data channel.")
@click.option("--bind", metavar="ADDR", help="Call from this address alone; by default from all there are.")
@click.option("--log", metavar="DIR", help="Write what is seen of RTP there.")
@json_option
def call(
    url: str,
    seconds: float,
    calls: int,
    setup: float,
    expect: str,
    least: float,
    no_data: bool,
    bind: str | None,
    log: str | None,
    as_json: bool,
) -> None:
    """Call the transceiver whose calls are posted to URL, play a signal, and look for it in what comes back.

    SIGTERM and SIGINT end the calls and print what was found. Exits with 1 where it is not what was to be expected.
    """
    require_linux()
    require_voice()
    import asyncio

    from testbed.voice.client.caller import Plan

    if not url.startswith(("http://", "https://")):
        raise UsageError("this is no URL", where="URL", found=url[:60], expected="such as http://192.0.2.1:8080/calls")
    if bind is not None:
        from testbed.voice.client.binding import only_from

        only_from(bind)
    plan = Plan(url, setup, data=not no_data)
    found = asyncio.run(_calls(plan, calls, seconds, Path(log) if log else None))
    right = [_right(each, expect, least, messages=not no_data) for each in found]
    if as_json:
        write_json({"right": sum(right), "calls": found})
    else:
        for each, is_right in zip(found, right, strict=True):
            _show(each, is_right)
    click.get_current_context().exit(int(ExitCode.PASS if all(right) else ExitCode.FAIL))


async def _calls(plan: Plan, calls: int, seconds: float, log: Path | None) -> list[dict[str, Any]]:
    import asyncio
    import os

    from testbed.voice.client.calls import call as made
    from testbed.voice.media.streams import Logging
    from testbed.voice.rtplog import RtpLog

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    rows = RtpLog(log, packets=_LOG_ROWS, frames=_LOG_ROWS) if log else None
    try:
        return await made(
            plan,
            calls,
            seconds,
            lambda number: Logging(rows, number) if rows else None,
            lambda live: click.echo(f"voice {os.getpid()}: {live} of {calls} calls are set up", err=True),
            stop,
        )
    finally:
        if rows:
            rows.close()


def _right(found: dict[str, Any], expect: str, least: float, *, messages: bool) -> bool:
    if found["error"] or found["ended"] != "here":
        return False
    if expect == "echo":
        returned = found["messages_returned"] >= 1 or not messages
        return bool(found["matched"] is not None and found["matched"] >= least and returned)
    return expect == "nothing" or bool(found["tone_440_hz"] >= least)


def _show(found: dict[str, Any], right: bool) -> None:
    click.echo(f"call {found['call']}: {'as it should be' if right else 'not as it should be'}")
    for name, value in found.items():
        if name == "call" or value is None:
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{part} {each:,.3g}" for part, each in value.items())
        elif isinstance(value, float):
            value = f"{value:,.3g}"
        click.echo(f"  {name}: {value}")
