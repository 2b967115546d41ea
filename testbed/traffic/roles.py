"""Roles on a fabric: the lab's command for each, started, known to be ready, stopped, its result read."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from testbed.errors import InfrastructureError, UsageError, nearest
from testbed.fabric.protocols import Fabric, Process, Ready
from testbed.lab import Role

_READY_TIMEOUT_S = 30.0
_MOST_RESULT_BYTES = 16 << 20
_TAIL = 2000


@dataclass(frozen=True)
class Player:
    """One process that plays a role on one host."""

    role: str
    host: str
    process: Process


class RoleRun:
    """The players of a role while they run; their results once they have stopped."""

    def __init__(self, fabric: Fabric, name: str, role: Role) -> None:
        self._fabric = fabric
        self._name = name
        self._role = role
        self.players: list[Player] = []
        #: Host → what the role left: None, one JSON value, or a list of them for ``jsonl``.
        self.results: dict[str, Any] = {}

    def start(self) -> None:
        """Start it on its host, or on each, and return when all are ready. Raises InfrastructureError."""
        role = self._role
        hosts = self._fabric.lab.topology.hosts if role.host == "each" else (role.host,)
        ready = Ready(fd=bool(role.ready.fd), line=role.ready.line, port=role.ready.port, timeout_s=_READY_TIMEOUT_S)
        for host in hosts:
            process = self._fabric.host(host).popen(role.argv, env=role.env, ready=ready, log_name=self._name)
            self.players.append(Player(self._name, host, process))

    def stop(self) -> None:
        """Stop all as the lab says, then read their results.

        Raises InfrastructureError for a player that failed before it was stopped, and for a result that cannot be read.
        """
        for player in self.players:
            code = player.process.poll()
            if code:
                raise InfrastructureError(
                    f"a role ended with exit code {code} before it was stopped",
                    where=f"role {self._name} on {player.host}",
                    found=player.process.output()[-_TAIL:],
                )
        for player in self.players:
            player.process.signal(signal.Signals[f"SIG{self._role.stop.signal}"])
        for player in self.players:
            player.process.end(self._role.stop.grace)
        for player in self.players:
            self.results[player.host] = self._result(player)

    def kill(self) -> None:
        """End all at once."""
        for player in self.players:
            player.process.signal(signal.SIGKILL)

    def _result(self, player: Player) -> Any:
        wanted = self._role.result
        if wanted.format == "none":
            return None
        where = f"role {self._name} on {player.host}"
        text = player.process.output() if wanted.path is None else self._file(player, wanted.path, where)
        try:
            return json.loads(text) if wanted.format == "json" else [json.loads(line) for line in text.splitlines()]
        except ValueError as error:
            raise InfrastructureError(
                "the result of a role cannot be read",
                where=where,
                found=f"{error}: {text[:200]!r}",
                expected=wanted.format,
            ) from error

    def _file(self, player: Player, path: str, where: str) -> str:
        done = self._fabric.host(player.host).run(["head", "-c", str(_MOST_RESULT_BYTES), "--", path], check=False)
        if done.returncode:
            raise InfrastructureError("a role left no result", where=where, found=done.stderr.strip(), expected=path)
        return done.stdout


@contextlib.contextmanager
def playing(fabric: Fabric, name: str) -> Iterator[RoleRun]:
    """Run what the lab names for a role while the block runs; results are there after it.

    Raises UsageError for a role that the lab does not fill, InfrastructureError for a command that does not start, does
    not become ready, or leaves a result that cannot be read.
    """
    roles = fabric.lab.roles.named()
    role = roles.get(name)
    if role is None:
        raise UsageError(
            f"this lab names no command for the role {name!r}",
            found=", ".join(roles) or "no roles",
            nearest=nearest(name, type(fabric.lab.roles).model_fields),
            remedy=f"add `roles: {{{name}: …}}` to the lab; docs/labs.md has the keys",
        )
    run = RoleRun(fabric, name, role)
    try:
        run.start()
        yield run
        run.stop()
    finally:
        run.kill()
