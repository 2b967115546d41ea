"""Hosts and switches of a rig: what runs on them, what they count."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from testbed.errors import InfrastructureError, UnsupportedError
from testbed.fabric.protocols import Completed, PhaseSink, Ready, UsidCounters
from testbed.fabric.rig import reboots
from testbed.fabric.rig.warden.handed import Told, handed
from testbed.fabric.rig.warden.process import RigProcess
from testbed.fabric.rig.warden.ready import wait_ready

if TYPE_CHECKING:
    from testbed.fabric.rig.fabric import RigFabric

_READY_FD: Final = 3


class RigNode:
    """A host or a switch: one device."""

    def __init__(self, fabric: RigFabric, name: str) -> None:
        self._fabric = fabric
        self._name = name

    @property
    def name(self) -> str:
        """The lab's name of it."""
        return self._name

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 30.0, env: Mapping[str, str] | None = None, check: bool = True
    ) -> Completed:
        """Run a command to its end. Raises InfrastructureError on the deadline or, with ``check``, for a failure."""
        warden = self._fabric.wardens.of(self._name)
        process = warden.spawn(argv, env=self._told(env), fds={}, separate=True)
        try:
            code = process.wait(timeout_s)
        except BaseException:
            process.stop(0.5)
            raise
        if process.lost:
            raise InfrastructureError(process.lost, where=f"{self._name}: {' '.join(argv)}"[:2000])
        stdout, stderr = process.output(whole=True), process.errors()
        if check and code != 0:
            raise InfrastructureError(
                f"{' '.join(argv)} failed with exit code {code}", where=self._name, found=(stderr or stdout)[-2000:]
            )
        return Completed(tuple(argv), code, stdout, stderr)

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        ready: Ready | None = None,
        log_name: str | None = None,
    ) -> RigProcess:
        """Start a process and return once it is ready. Raises InfrastructureError if it does not become so."""
        process = self._start(argv, env, ready or Ready(), log_name)
        process.again = lambda: self._start(argv, env, ready or Ready(), log_name)
        self._fabric.started.add(process)
        return process

    def _start(
        self, argv: Sequence[str], env: Mapping[str, str] | None, ready: Ready, log_name: str | None
    ) -> RigProcess:
        warden, told = self._fabric.wardens.of(self._name), Told()
        log = self._fabric.log_path(f"{self._name}-{log_name or (Path(argv[0]).name if argv else '')}")
        environment, fds = self._told(env), {}
        if ready.fd:
            environment, fds = {**environment, "READY_FD": str(_READY_FD)}, {_READY_FD: told}
        process = warden.spawn(argv, env=environment, fds=fds, log=log)
        wait_ready(process, ready, told, warden)
        return process

    def _told(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {"TESTBED_FABRIC": self._fabric.name, "TESTBED_NODE": self._name, **(env or {})}

    def port_counters(self) -> Mapping[str, Mapping[str, int]]:
        """Port → 64-bit counters named as in rtnl_link_stats64 (``rx_packets``, ``tx_dropped``, …)."""
        return self._fabric.rig.port_counters(self._name)


class RigHost(RigNode):
    """A host with one NIC port per plane."""


class RigSwitch(RigNode):
    """A T0 or a T1."""

    def usid_counters(self) -> UsidCounters:
        """Raises UnsupportedError: no driver tells these yet."""
        raise UnsupportedError("what this switch shifted and dropped is not counted", where=self._name)

    def ecn_marked(self) -> Mapping[str, int]:
        """Raises UnsupportedError: no driver tells this yet."""
        raise UnsupportedError(f"{self._name} does not tell how many packets it marked", where=self._fabric.name)

    def reboot(self, kind: str, on_phase: PhaseSink, *, stop: Callable[[float], bool]) -> None:
        """A real one, with the phases as neighbours see them; see :meth:`testbed.fabric.protocols.Switch.reboot`."""
        del stop  # A device that has begun to reboot is not held up.
        reboots.carry_out(self._fabric, self._name, kind, on_phase)


class RigAgentSite:
    """One process of ours on one host, by the code that was sent there."""

    def __init__(self, fabric: RigFabric, host: str) -> None:
        self._fabric = fabric
        self.hosts = [host]

    def namespace_fd(self, host: str) -> None:
        """None: the process runs on the host."""
        del host

    def start(self, argv: Sequence[str], *, fds: Mapping[int, int], log_name: str) -> RigProcess:
        """Start the agent with descriptors handed over; see :class:`testbed.fabric.protocols.AgentSite`."""
        (host,) = self.hosts
        code = self._fabric.code
        env = {"PYTHONPATH": code.folder(host), "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"}
        command = [code.python, *argv[1:]] if argv[0] == sys.executable else list(argv)
        log = self._fabric.log_path(f"{host}-{log_name}")
        return self._fabric.wardens.of(host).spawn(command, env=env, fds=handed(fds), log=log)
