"""The command line: ``testbed``. Each module of this package holds one group of commands."""

from __future__ import annotations

from typing import Any

import click

from testbed import __version__
from testbed.cli.lab import lab
from testbed.errors import BedError


class _BedGroup(click.Group):
    """A group whose commands end with the exit code of the error they raise, and with its text instead of a trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BedError as error:
            for line in error.lines():
                click.echo(line, err=True)
            ctx.exit(int(error.exit_code))


@click.group(cls=_BedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="testbed")
def main() -> None:
    """Hardware-in-the-loop testbed for multipath RDMA over multi-plane SRv6 fabrics."""


main.add_command(lab)
