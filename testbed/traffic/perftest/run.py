"""A server and a client through a fabric: the project's own programs, or those that the lab names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.protocols import Fabric, Process, Ready
from testbed.lab import Role
from testbed.record import Figure
from testbed.traffic.exclusive import measuring
from testbed.traffic.pairs import Pair
from testbed.traffic.perftest.options import Tool, check
from testbed.traffic.perftest.table import Row, read_table

#: In a role's argv: stands for ``write_bw`` or ``write_lat``.
TOOL = "{tool}"
_WAITING = "Waiting for client to connect"
_READY_S = 30.0
_PATIENCE_S = 60.0
_END_S = 10.0
_TAIL = 2000


@dataclass(frozen=True)
class PerftestResult:
    """What one run came to.

    Attributes:
        tool: ``write_bw`` or ``write_lat``.
        pair: the client's host, and the server's.
        argv: the client's command line.
        row: the line of the table that the client printed.
        figures: its values, with definitions.
        output: what the client printed.
        server_output: what the server printed.
    """

    tool: str
    pair: Pair
    argv: tuple[str, ...]
    row: Row
    figures: tuple[Figure, ...]
    output: str
    server_output: str

    def value(self, name: str) -> float | None:
        """A figure's value in its unit; None where it is unknown. Raises UsageError for one that it does not have."""
        for figure in self.figures:
            if figure.name == name:
                return figure.value
        raise UsageError(
            "this run has no such figure", found=name, expected=", ".join(figure.name for figure in self.figures)
        )


def command_of(role: Role | None, tool: Tool) -> tuple[str, ...]:
    """Program and first arguments: the role's, or the project's own where the lab names none.

    Raises UsageError for a role that does not say which of its programs measures what.
    """
    if role is None:
        return (sys.executable, "-m", "testbed.traffic.perftest", str(tool))
    if not any(TOOL in word for word in role.argv):
        raise UsageError(
            f"the lab's mrc_endpoint is no {tool.program}",
            where="roles.mrc_endpoint.argv",
            found=" ".join(role.argv)[:200],
            expected=f"{TOOL} where {' or '.join(Tool)} belongs",
            remedy=f'for perftest on hardware write `argv: ["ib_{TOOL}", -d, mlx5_0]`',
        )
    return tuple(word.replace(TOOL, str(tool)) for word in role.argv)


def measure(fabric: Fabric, pair: Pair, tool: Tool, options: Sequence[str], *, seconds: float) -> PerftestResult:
    """Run a server on the pair's second host and a client on its first, with the same options.

    Args:
        fabric: where.
        pair: the client's host, and the server's.
        tool: what to measure.
        options: as on the command line, for both ends.
        seconds: how long it may take beside start and end.

    Raises UsageError for what cannot be, LabError for unknown hosts, InfrastructureError where either end fails.
    """
    check(tool, options)
    client_host, server_host = pair
    client_node, server_node = fabric.host(client_host), fabric.host(server_host)
    if client_host == server_host or not fabric.addresses.evs(*pair):
        raise UsageError("these hosts have no path to each other", found=f"{client_host}>{server_host}")
    role = fabric.lab.roles.mrc_endpoint
    argv = [*command_of(role, tool), *options]
    ready = Ready(line=_WAITING, timeout_s=_READY_S)
    if role is not None:
        ready = Ready(bool(role.ready.fd), role.ready.line, role.ready.port, _READY_S)
    env = {} if role is None else role.env
    client: Process | None = None
    with measuring():
        server = server_node.popen(argv, env=env, ready=ready, log_name=f"{tool.program}-server")
        try:
            client = client_node.popen([*argv, server_host], env=env, log_name=f"{tool.program}-client")
            code = client.wait(seconds + _PATIENCE_S)
            _check(pair, code, client, server)
            _check(pair, server.wait(_END_S), server, client)
        finally:
            for process in (client, server):
                if process is not None:
                    process.stop()
    rows = read_table(client.output())
    if len(rows) != 1:
        raise InfrastructureError("a run of one size has several results", found=client.output()[-_TAIL:])
    return PerftestResult(
        tool=str(tool),
        pair=pair,
        argv=client.argv,
        row=rows[0],
        figures=rows[0].figures(f"flow {client_host}>{server_host}"),
        output=client.output(),
        server_output=server.output(),
    )


def _check(pair: Pair, code: int, process: Process, other: Process) -> None:
    if code:
        raise InfrastructureError(
            f"{process.argv[0]} ended with exit code {code}",
            where=f"{pair[0]}>{pair[1]}",
            found=f"{process.output()[-_TAIL:]}\nthe other end:\n{other.output()[-_TAIL:]}",
        )
