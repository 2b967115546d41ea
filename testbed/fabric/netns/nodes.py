"""Hosts and switches of a namespace fabric."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import BedError, InfrastructureError, UnhealedError, UnsupportedError, nearest
from testbed.fabric.netns import build, marking, messages, processes, snapshot
from testbed.fabric.netns.processes import NetnsProcess
from testbed.fabric.netns.state import Action, NodeState, Route
from testbed.fabric.protocols import Completed, PhaseSink, Ready, UsidCounters
from testbed.record import Event

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric


class NetnsNode:
    """A host or a switch: one namespace."""

    def __init__(self, fabric: NetnsFabric, name: str) -> None:
        self._fabric = fabric
        self._name = name

    @property
    def name(self) -> str:
        """The lab's name of it."""
        return self._name

    @property
    def namespace(self) -> int:
        """Number of its namespace with the keeper."""
        return self._fabric.plan.namespaces[self._name]

    @property
    def planned(self) -> NodeState:
        """The kernel state it is to have."""
        return self._fabric.plan.nodes[self._name]

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 30.0, env: Mapping[str, str] | None = None, check: bool = True
    ) -> Completed:
        """Run a command to its end. Raises InfrastructureError on the deadline or, with ``check``, for a failure."""
        with processes.open_memory() as errors:
            process = processes.start(
                self._fabric.client, self._name, self.namespace, argv, self._told(env), fds={2: errors.fileno()}
            )
            try:
                code = process.wait(timeout_s)
            except BaseException:
                process.stop(0.5)
                raise
            errors.seek(0)
            stdout, stderr = process.output(whole=True), errors.read().decode(errors="replace")
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
    ) -> NetnsProcess:
        """Start a process and return once it is ready. Raises InfrastructureError if it does not become so."""
        log = self._fabric.log_path(f"{self._name}-{log_name or Path(argv[0]).name}")
        return processes.start_and_wait(
            self._fabric.client, self._name, self.namespace, argv, self._told(env), ready or Ready(), log
        )

    def _told(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {**self._fabric.environment(self._name), **(env or {})}

    def port_counters(self) -> Mapping[str, Mapping[str, int]]:
        """Port → 64-bit counters named as in rtnl_link_stats64 (``rx_packets``, ``tx_dropped``, …)."""
        return snapshot.port_counters(self._fabric.client, self.namespace)


class NetnsHost(NetnsNode):
    """A host with one NIC port per plane."""


class NetnsAgentSite:
    """One process, started in the first host's namespace, with descriptors of the namespaces of all."""

    # Above what a caller hands over.
    _FIRST_NAMESPACE_FD = 32

    def __init__(self, fabric: NetnsFabric, hosts: Sequence[NetnsHost]) -> None:
        self._fabric = fabric
        self._nodes = {host.name: host for host in hosts}
        self.hosts = list(self._nodes)

    def namespace_fd(self, host: str) -> int:
        """Number, in the started process, of the descriptor of a host's network namespace."""
        return self._FIRST_NAMESPACE_FD + self.hosts.index(host)

    def start(self, argv: Sequence[str], *, fds: Mapping[int, int], log_name: str) -> NetnsProcess:
        """Start the agent with descriptors handed over (number there → number here). Raises InfrastructureError."""
        first = self._nodes[self.hosts[0]]
        namespaces = {self.namespace_fd(name): host.namespace for name, host in self._nodes.items()}
        log = self._fabric.log_path(log_name)
        return processes.start(
            self._fabric.client, first.name, first.namespace, argv, None, log=log, fds=fds, namespace_fds=namespaces
        )


class NetnsSwitch(NetnsNode):
    """A T0 or a T1: seg6local routes and forwarding."""

    def usid_counters(self) -> UsidCounters:
        """Packets shifted, and packets dropped for a foreign uSID."""
        counters = snapshot.segment_counters(self._fabric.client, self.namespace)
        own, catch_all = self._seg6local_routes()
        # Only the catch-all's errors are foreign packets: an End without an SRH to work on fails for each. The uN
        # route's own errors rise for the same packets when a shifted destination is unknown, and must not be added.
        packets = counters.get((own.prefix, own.length), (0, 0, 0))[0]
        return UsidCounters(shifted=packets, foreign=counters.get((catch_all.prefix, catch_all.length), (0, 0, 0))[2])

    def ecn_marked(self) -> Mapping[str, int]:
        """Port that leads to another switch → packets it marked (ECN); see the protocol."""
        reason = self._fabric.capabilities.reason_against("ecn")
        if reason is not None:
            raise UnsupportedError(f"{self._name} does not mark packets", where=self._fabric.name, found=reason)
        marking_ports = {marker.ifindex for marker in self.planned.markers}
        names = sorted(device.name for device in self.planned.devices if device.ifindex in marking_ports)
        return marking.marked(self._fabric.client, self.namespace, names)

    def _seg6local_routes(self) -> tuple[Route, Route]:
        routes = {route.action: route for route in self.planned.routes}
        return routes[Action.UN], routes[Action.DROP]

    def reboot(self, kind: str, on_phase: PhaseSink, *, stop: Callable[[float], bool]) -> None:
        """Emulate a reboot with the phases of the lab; see :meth:`testbed.fabric.protocols.Switch.reboot`."""
        if kind != "cold":
            close = nearest(kind, ["cold"])
            raise UnsupportedError(f"a namespace switch cannot do a {kind!r} reboot", expected="cold", nearest=close)
        phases = self._fabric.lab.reboot.cold
        key = f"reboot of {self._name}"
        self._fabric.held.hold_switch(self._name)
        try:
            self._fabric.client.undo(key, [(self.namespace, messages.join(self._restore_messages(self.planned)))])
        except BaseException:
            self._fabric.held.release_switch(self._name)
            raise
        try:
            self._power_off(on_phase)
            if not stop(phases.links_lost):
                self._links_back(on_phase)
                stop(phases.tables_empty)
        finally:
            self._restore(on_phase)
            with contextlib.suppress(BedError):
                self._fabric.client.undone(key)

    def _ports(self) -> list[int]:
        return sorted(self._fabric.plan.ports[port] for port in self._fabric.lab.topology.ports(self._name))

    def _power_off(self, on_phase: PhaseSink) -> None:
        """Stop forwarding at once by taking the own uSID away, as losing power does; then the links go."""
        own, _ = self._seg6local_routes()
        requests = [messages.route_delete(own), *(messages.link_down(index) for index in self._ports())]
        (stopped, *lost) = self._fabric.change(self.namespace, requests)
        on_phase(Event.between("traffic", self._name, "stopped", *stopped))
        on_phase(Event.between("carrier", self._name, "carrier lost", lost[0][0], lost[-1][1]))

    def _links_back(self, on_phase: PhaseSink) -> None:
        back = [index for index in self._ports() if index not in self._fabric.held.down_on(self._name)]
        if not back:
            return
        stamps = self._fabric.change(self.namespace, [messages.link_up(index) for index in back])
        on_phase(Event.between("carrier", self._name, "carrier back", stamps[0][0], stamps[-1][1]))

    def _restore_messages(self, state: NodeState) -> list[bytes]:
        # A reboot takes no port's routes but these; installed again, the catch-all would lose what it has counted.
        _, catch_all = self._seg6local_routes()
        return build.state_messages(state - NodeState(routes={catch_all}), self._fabric.plan.burst)

    def _restore(self, on_phase: PhaseSink) -> None:
        """Put everything back; the own uSID, without which nothing passes, last, once all else has settled."""
        own, _ = self._seg6local_routes()
        try:
            down = self._fabric.held.bring_back(self._name)
            requests = self._restore_messages(self.planned.beside(down))
            self._fabric.change(self.namespace, requests[:-1])
            self._fabric.wait_settled(self._name, besides=own)
            (forwarding,) = self._fabric.change(self.namespace, requests[-1:])
            # First, so that of two neighbours that come back at once the last sees the other complete.
            self._fabric.held.release_switch(self._name)
            self._fabric.wait_settled(self._name)
        except InfrastructureError as error:
            raise UnhealedError(f"{self._name} did not come back from its reboot", found=str(error)) from error
        finally:
            self._fabric.held.release_switch(self._name)
        on_phase(Event.between("tables", self._name, "forwarding", *forwarding))
