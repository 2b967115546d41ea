"""The command line: ``testbed``. Each module of this package holds one command, or one group of commands."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any, Final

import click

from testbed import __version__
from testbed.errors import BedError, nearest

#: Command → module it is in. A module is imported when its command is used, so that no command pays for another.
_COMMANDS: Final = {
    "backend": "backend",
    "capture": "capture",
    "check": "check",
    "compare": "history",
    "doctor": "doctor",
    "down": "fabrics",
    "driver": "driver",
    "export": "export",
    "fault": "fault",
    "heal": "heal",
    "history": "history",
    "lab": "lab",
    "lease": "lease",
    "merge": "report",
    "mrc": "mrc",
    "nightly": "nightly",
    "path": "path",
    "ping": "ping",
    "plan": "plan",
    "prober": "prober",
    "qualify": "qualify",
    "publish": "publish",
    "relay": "relay",
    "report": "report",
    "rerun": "run",
    "run": "run",
    "shell": "shell",
    "status": "fabrics",
    "transceiver": "transceiver",
    "up": "fabrics",
    "voice": "voice",
    "watch": "watch",
}
#: What ``testbed --help`` says of each, without importing any.
_HELP: Final = {
    "backend": "Run what a transceiver hands audio and events to.",
    "capture": "Show or record the packets on the ports of a fabric.",
    "check": "Tell what is wrong with a rig of real devices.",
    "compare": "Compare two runs: tests, conditions, figures.",
    "doctor": "Tell what this machine can and cannot do.",
    "down": "End running fabrics.",
    "driver": "List drivers of devices, and begin a new one.",
    "export": "Tell what a run came to as Prometheus metrics.",
    "fault": "Break something on a running fabric, and heal it.",
    "heal": "Put right what processes that died have left broken.",
    "history": "Keep runs in a database, and list them.",
    "lab": "Show and check lab files.",
    "lease": "Take a rig of real devices, give it back, see whose it is.",
    "merge": "Put runs of several runners together.",
    "mrc": "Decode MRC packets, and judge them.",
    "nightly": "Run a suite on labs, store, compare, publish, tell.",
    "path": "Show the way of an entropy value, hop by hop.",
    "ping": "Probe paths of a running fabric, hop by hop.",
    "plan": "Tell what a run would do to a rig of real devices.",
    "prober": "Probe every link of a running fabric, and name what fails.",
    "qualify": "Run the paper's experiments, and print them beside its figures.",
    "publish": "Build a static site of all runs.",
    "relay": "Run a WebRTC relay, look at it, load it.",
    "report": "Make pages from what a run left.",
    "rerun": "Run again what a result was made by.",
    "run": "Build a fabric, break it under probes, and measure what that cost.",
    "shell": "Open a shell, or run a command, on a node.",
    "status": "List the running fabrics.",
    "transceiver": "Run a WebRTC transceiver behind relays.",
    "up": "Build a fabric and leave it running.",
    "voice": "Make WebRTC calls, and check what comes back.",
    "watch": "Show what goes on on a running fabric: planes, flows, faults.",
}

#: As shells tell an end by SIGINT; not 1, which is a measured failure.
_INTERRUPTED: Final = 130


class _BedGroup(click.Group):
    """A group whose commands end with the exit code of the error they raise, and with its text instead of a trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in _COMMANDS:
            return None
        found = getattr(importlib.import_module(f"testbed.cli.{_COMMANDS[name]}"), name)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            close = nearest(args[0], _COMMANDS)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {close!r}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _HELP[name]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BedError as error:
            for line in error.lines():
                click.echo(line, err=True)
            ctx.exit(int(error.exit_code))
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            ctx.exit(_INTERRUPTED)


@click.group(cls=_BedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="testbed")
def main() -> None:
    """Hardware-in-the-loop testbed for multipath RDMA over multi-plane SRv6 fabrics."""
    for stream in (sys.stdout, sys.stderr):
        # A locale without a bullet or an arrow shows "?" instead; it is no reason to end.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
