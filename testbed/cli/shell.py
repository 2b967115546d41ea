"""``testbed shell``: a shell or a command on a node of a running fabric."""

from __future__ import annotations

import os
import shutil
import sys

import click

from testbed.cli.common import attached, fabric_option


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("node")
@fabric_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell(node: str, fabric: str | None, command: tuple[str, ...]) -> None:
    """Open a shell on NODE, or run COMMAND there; its exit code is this command's.

    Options of COMMAND go behind a double dash. What it starts ends with it, and all of it with the fabric.
    """
    from testbed.fabric.netns.executed import command as executed
    from testbed.fabric.netns.keeper.namespaces import FIRST_FD

    found = attached(fabric)
    descriptor = FIRST_FD + found.node(node).namespace
    keeper = found.client.keeper_pid
    name = found.name
    environment = {**os.environ, **found.environment(node)}
    found.client.close()
    interactive = not command and os.isatty(0)
    if not command:
        command, more = _shell(node, name, interactive)
        environment |= more
    argv = executed("testbed.fabric.netns.enter", str(keeper), str(descriptor), str(int(interactive)), *command)
    sys.stdout.flush()
    sys.stderr.flush()
    # Executed in place of this process: entering a user namespace takes a process without further threads, and who
    # signals this command reaches the helper.
    os.execve(argv[0], argv, environment)


def _shell(node: str, fabric: str, interactive: bool) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command line of a shell whose prompt tells where it is, and what to add to its environment."""
    from testbed.fabric import netns

    bash = shutil.which("bash")
    if bash is None:
        return ("sh",), {"PS1": f"[{node}@{fabric}] $ "}
    if not interactive:
        return (bash,), {}
    start = os.path.join(os.path.dirname(netns.__file__), "shell.bashrc")  # noqa: PTH118, PTH120
    return (bash, "--rcfile", start, "-i"), {}
