"""Hosts and switches that run Linux, by iproute2's JSON over SSH.

Ports and routes from ip-link(8), ip-route(8) and ip-neighbour(8) of iproute2; ``flavors next-csid`` needs iproute2 6.1
and Linux 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from testbed.errors import InfrastructureError, UnsupportedError, UsageError
from testbed.fabric.devices import NEVER_ON_HARDWARE, Access, Change, Changes, Does, Inverse, PortState, UsidRoute
from testbed.lab.inventory import Device
from testbed_drivers import ethtool, iproute
from testbed_drivers.iproute import GATEWAY, Neighbour
from testbed_drivers.linux_frames import LinuxFrames
from testbed_drivers.linux_readings import LinuxReadings
from testbed_drivers.linux_shows import LINUX_SHOWS
from testbed_drivers.linux_work import SID_DEVICE, LinuxWork
from testbed_drivers.perport import each_port
from testbed_drivers.ssh import Connection, Connections
from testbed_drivers.tables import require_same

#: What undoes a step, and the command that makes it.
Step = tuple[dict[str, Any], list[str]]


class LinuxHost(LinuxReadings, LinuxFrames, LinuxWork):
    """A host: its ports, their counters, its NIC's addresses, all that its programs tell, and what runs on it."""

    capabilities = frozenset(
        {"ports", "counters", "lldp", "optics", "fec", "flow-control", "queues", "clock", "versions", "reboot"}
        | {"frames", "programs", "files", "nic"}
    )
    verified_on = NEVER_ON_HARDWARE
    shows: Mapping[str, str] = LINUX_SHOWS
    refused: Mapping[str, str] = {
        "trimming": "the kernel trims no packets",
        "nic-counters": "they are the NIC's own: take the driver of its family",
    }

    def __init__(self, device: Device, access: Access) -> None:
        self.device = device
        connections = access.shared("ssh", lambda: Connections(read_only=access.read_only, guard=access.guard))
        self.connection: Connection = connections.to(device)
        self._names = {name: port for port, name in device.ports.items()}

    def version(self) -> str:
        """Kernel and iproute2."""
        kernel = self.connection.read(["uname", "-sr"]).stdout.strip()
        return f"{kernel}, {self.connection.read(['ip', '-V']).stdout.strip()}"

    def ports(self) -> Mapping[str, PortState]:
        """Port of the fabric → its state; the speed by ethtool, if that is there.

        Raises InfrastructureError for a port that the device does not have.
        """
        states, speeds = self._states(), self._speeds()
        return {port: replace(state, speed=speeds.get(state.name)) for port, state in states.items()}

    def _speeds(self) -> dict[str, int | None]:
        try:
            said = each_port(self.connection, 'ethtool "$p"', self.device.ports.values())
        except UnsupportedError:
            return {}
        return {name: ethtool.speed(each.output) for name, each in said.items()}

    def _states(self) -> dict[str, PortState]:
        found = iproute.port_states(self._json("ip", "-j", "link", "show"))
        missing = [f"{port} ({name})" for port, name in self.device.ports.items() if name not in found]
        if missing:
            raise InfrastructureError(
                "the cable map names ports that the device does not have",
                where=self.device.node,
                found="no " + ", ".join(missing),
                expected="of: " + ", ".join(sorted(found)[:64]),
            )
        return {port: found[name] for port, name in self.device.ports.items()}

    def port_counters(self) -> Mapping[str, Mapping[str, int]]:
        """Port of the fabric → counters named as in rtnl_link_stats64."""
        found = iproute.counters(self._json("ip", "-j", "-s", "-s", "link", "show"))
        return {port: found[name] for port, name in self.device.ports.items() if name in found}

    def set_port(self, port: str, *, up: bool, changes: Changes) -> Change | None:
        """Set a port of the fabric up or down; routes that the kernel takes away with it are put back by undoing."""
        name = self.device.device_port(port)
        state = self._states()[port]
        if state.up == up:
            return None
        lost = self._hanging_on(name) if not up else {"routes": [], "neighbours": [], "addresses": []}
        inverse = {"kind": "port", "port": name, "up": state.up, **lost}
        change = changes.begin(self.device, f"{port} {'up' if up else 'down'}", inverse)
        self._set(name, up=up, under=change)
        change.made()
        return change

    def undo(self, inverse: Inverse, under: Change) -> None:
        """Undo a change; see :meth:`testbed.fabric.devices.Driver.undo`."""
        kind = inverse.get("kind")
        if kind == "port":
            self._own_port(inverse["port"])
            self._set(inverse["port"], up=bool(inverse["up"]), under=under)
            for address in inverse.get("addresses", ()):
                self._write(iproute.address_add(address, inverse["port"]), under)
            for neighbour in inverse["neighbours"]:
                self._write(iproute.neighbour_replace(Neighbour(*neighbour)), under)
            for route in inverse["routes"]:
                self._write(iproute.raw_route("replace", route), under)
        elif kind == "table":
            for step in reversed(inverse["steps"]):
                self.undo(step, under)
        elif kind == "route":
            self._undo_route(inverse, under)
        elif kind == "neighbour":
            self._undo_neighbour(inverse, under)
        elif kind == "interface":
            # Exit code 1 of a name that is not there, which is what is wanted.
            if inverse["name"] in iproute.port_states(self._json("ip", "-j", "link", "show")):
                self._write(["ip", "link", "delete", "dev", inverse["name"]], under)
        elif not self._undo_work(inverse, under):
            raise UsageError("this change is not one of this driver's", where=self.device.node, found=str(kind))

    def _undo_route(self, inverse: Inverse, under: Change) -> None:
        here = iproute.of_prefix(self._routes(), inverse["prefix"])
        before = inverse["before"]
        if before is not None and before not in here:
            self._write(iproute.raw_route("replace", before), under)
        elif before is None and here:
            self._write(["ip", "-6", "route", "del", inverse["prefix"]], under)

    def _undo_neighbour(self, inverse: Inverse, under: Change) -> None:
        wanted = Neighbour(inverse["address"], inverse["port"], inverse["before"] or "")
        here = {(n.address, n.port): n for n in self._neighbours()}.get((wanted.address, wanted.port))
        if wanted.mac and here != wanted:
            self._write(iproute.neighbour_replace(wanted), under)
        elif not wanted.mac and here is not None:
            self._write(["ip", "-6", "neigh", "del", wanted.address, "dev", wanted.port], under)

    def _hanging_on(self, name: str) -> dict[str, Any]:
        """What the kernel removes when an interface is set down, so that it can be put back."""
        routes = [iproute.settled(route) for route in self._routes() if route.get("dev") == name]
        routes = [route for route in routes if route.get("protocol") == "static" and not self._comes_back(route)]
        for route in routes:
            iproute.raw_route("replace", route)
        addresses = [address for port, address in self._addresses() if port == name]
        return {
            "routes": routes,
            "neighbours": [list(n) for n in self._neighbours() if n.port == name],
            "addresses": addresses,
        }

    @staticmethod
    def _comes_back(route: Mapping[str, Any]) -> bool:
        """Whether somebody on the device puts a route back when its interface is up again; nobody does here."""
        del route
        return False

    def _own_port(self, name: str) -> None:
        if name not in self._names or name in self.device.management:
            raise UsageError(
                "this port is not in the cable map, and is not touched", where=f"{self.device.node}:{name}"
            )

    def _set(self, name: str, *, up: bool, under: Change) -> None:
        self._own_port(name)
        self._write(["ip", "link", "set", "dev", name, "up" if up else "down"], under)

    def _routes(self) -> list[dict[str, Any]]:
        return iproute.rows(self._json("ip", "-j", "-d", "-6", "route", "show", "table", "main"), self.device.node)

    def _neighbours(self) -> list[Neighbour]:
        return iproute.neighbours(self._json("ip", "-j", "-6", "neigh", "show", "nud", "permanent"))

    def _neighbour_steps(self, peers: Mapping[str, str]) -> list[Step]:
        here = {(n.address, n.port): n.mac for n in self._neighbours()}
        steps: list[Step] = []
        for port, mac in peers.items():
            self._own_port(port)
            gateway = self._gateway(mac)
            before = here.get((gateway, port))
            if before != mac:
                inverse = {"kind": "neighbour", "address": gateway, "port": port, "before": before}
                steps.append((inverse, iproute.neighbour_replace(Neighbour(gateway, port, mac))))
        return steps

    @staticmethod
    def _gateway(mac: str) -> str:
        """The address of whoever is at the other end; every link has the same here, since it is unnumbered."""
        del mac
        return GATEWAY

    def _addresses(self) -> list[tuple[str, dict[str, Any]]]:
        return iproute.addresses(self._json("ip", "-j", "-6", "address", "show", "scope", "global"))

    def _json(self, *argv: str) -> str:
        return self.connection.read(argv).stdout

    def _write(self, argv: Sequence[str], under: Change) -> None:
        self.connection.write(argv, under=under)


class LinuxSwitch(LinuxHost):
    """A switch whose data plane is the kernel's: seg6local routes."""

    capabilities = (LinuxHost.capabilities - {"nic"}) | {"usids"}

    def usid_routes(self, block: str) -> Sequence[UsidRoute]:
        """What of the block the device has, whoever installed it; sorted."""
        return iproute.usid_routes(self._routes(), block)

    def install(
        self, block: str, routes: Sequence[UsidRoute], peers: Mapping[str, str], changes: Changes
    ) -> list[Change]:
        """Have the block's table be exactly this, and read it back; see the protocol."""
        made = self._make(block, routes, peers, changes)
        require_same(self.device.node, routes, self.usid_routes(block))
        return made

    def _make(
        self, block: str, routes: Sequence[UsidRoute], peers: Mapping[str, str], changes: Changes
    ) -> list[Change]:
        # What undoes each step beside the step: all of the former is journalled before the first of the latter.
        steps = [*self._sid_device_step(), *self._neighbour_steps(peers), *self._route_steps(block, routes, peers)]
        made: list[Change] = []
        if steps:
            inverse = {"kind": "table", "steps": [undo for undo, _ in steps]}
            made.append(changes.begin(self.device, f"uSID table of {len(routes)} routes", inverse))
            for _, argv in steps:
                self._write(argv, made[0])
            made[0].made()
        return made

    def _sid_device_step(self) -> list[Step]:
        if self._has_sid_device():
            return []
        return [({"kind": "interface", "name": SID_DEVICE}, iproute.sid_device_add(SID_DEVICE))]

    def _route_steps(self, block: str, routes: Sequence[UsidRoute], peers: Mapping[str, str]) -> list[Step]:
        del peers
        rows = self._routes()
        wanted = {route.prefix: route for route in routes}
        present = {route.prefix: route for route in iproute.usid_routes(rows, block)}
        steps: list[Step] = []
        for prefix in sorted(wanted.keys() | present.keys()):
            route = wanted.get(prefix)
            if route == present.get(prefix):
                continue
            before = self._restorable(iproute.of_prefix(rows, prefix))
            if route is not None and route.does is Does.FORWARD:
                self._own_port(route.port)
            argv = ["ip", "-6", "route", "del", prefix] if route is None else iproute.route_replace(route, SID_DEVICE)
            steps.append(({"kind": "route", "prefix": prefix, "before": before}, argv))
        return steps
