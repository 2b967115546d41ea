"""Switches that run Arista EOS, 4.34.2F or newer: by its own FastCli, from an account whose shell is bash.

Configuration goes through a session that is committed only when every line was taken (`configure session`, as the
collection arista.eos does). `show … | json` as in the tests of napalm (test/eos/mocked_data).
What is read back is the running configuration: no published form of `show srv6 route` was found.
Where the uSID after the active one is 0000, a 7060X6 drops the packet. Changing SRv6 may restart its agent, which
interrupts traffic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.abilities import Clock, LldpNeighbour
from testbed.fabric.devices import NEVER_ON_HARDWARE, Access, Change, Changes, Inverse, PortState, UsidRoute
from testbed.lab.inventory import Device
from testbed_drivers import clocks
from testbed_drivers import eos_config as config
from testbed_drivers.ssh import Connection, Connections
from testbed_drivers.tables import require_same

_SESSION: Final = "configure session testbed"
_NO_SOURCE: Final = "no published source was found for it"


class Eos:
    """A switch; its ports have to be routed ones with IPv6 on, and their peers to have link-local addresses by MAC."""

    capabilities = frozenset({"ports", "counters", "usids", "lldp", "clock", "versions"})
    verified_on = NEVER_ON_HARDWARE
    refused: Mapping[str, str] = {
        "reboot": _NO_SOURCE,
        "optics": _NO_SOURCE,
        "fec": _NO_SOURCE,
        "flow-control": _NO_SOURCE,
        "queues": _NO_SOURCE,
        "trimming": _NO_SOURCE,
        "wred": _NO_SOURCE,
    }

    def __init__(self, device: Device, access: Access) -> None:
        self.device = device
        connections = access.shared("ssh", lambda: Connections(read_only=access.read_only, guard=access.guard))
        self.connection: Connection = connections.to(device)

    # -- reading ---------------------------------------------------------------------------------------------------

    def version(self) -> str:
        """Model and EOS."""
        about = self._json("show version")
        return f"{about.get('modelName', 'Arista')}, EOS {about.get('version', 'unknown')}"

    def versions(self) -> Mapping[str, str]:
        """EOS, the model, and the kernel beneath."""
        about = self._json("show version")
        found = {"system": f"EOS {about.get('version', 'unknown')}", "hwsku": str(about.get("modelName", ""))}
        return {**found, "kernel": self.connection.read(["uname", "-sr"]).stdout.strip()}

    def ports(self) -> Mapping[str, PortState]:
        """Port of the fabric → its state. Raises InfrastructureError for one that the switch does not have."""
        rows = self._interfaces()
        return {port: config.port_state(name, rows[name]) for port, name in self.device.ports.items()}

    def port_counters(self) -> Mapping[str, Mapping[str, int]]:
        """Port of the fabric → counters named as in rtnl_link_stats64."""
        rows = self._interfaces()
        return {port: config.counters(rows[name]) for port, name in self.device.ports.items()}

    def lldp_neighbours(self) -> Mapping[str, Sequence[LldpNeighbour]]:
        """Port of the fabric → who announces itself there."""
        found = config.neighbours(self._json("show lldp neighbors"))
        return {port: found.get(name, []) for port, name in self.device.ports.items()}

    def clock(self) -> Clock:
        """The switch's clock."""
        return clocks.read(self.connection)

    def usid_routes(self, block: str) -> Sequence[UsidRoute]:
        """What of the block is configured, whoever did it; sorted."""
        return config.usid_routes(self._facts(), block)

    # -- changing --------------------------------------------------------------------------------------------------

    def set_port(self, port: str, *, up: bool, changes: Changes) -> Change | None:
        """Set a port of the fabric up or down."""
        name = self.device.device_port(port)
        if self.ports()[port].up == up:
            return None
        change = changes.begin(
            self.device, f"{port} {'up' if up else 'down'}", {"kind": "port", "port": name, "up": not up}
        )
        self._set_port(name, up=up, under=change)
        change.made()
        return change

    def install(
        self, block: str, routes: Sequence[UsidRoute], peers: Mapping[str, str], changes: Changes
    ) -> list[Change]:
        """Have the block's table be exactly this, in one session, and read the configuration back; see the protocol."""
        for port in (*peers, *(route.port for route in routes if route.port)):
            self._own_port(port)
        here = config.of_block(self._facts(), block)
        wanted = config.wanted(block, routes, peers)
        made: list[Change] = []
        if here != wanted:
            # How a run that is gone left it is computed anew when it is undone: facts, not lines.
            inverse = {"kind": "facts", "block": block, "facts": sorted(here)}
            made.append(changes.begin(self.device, f"uSID table of {len(routes)} routes", inverse))
            self._configure(config.lines(here - wanted, wanted - here), made[0])
            made[0].made()
        require_same(self.device.node, routes, self.usid_routes(block))
        return made

    def undo(self, inverse: Inverse, under: Change) -> None:
        """Undo a change; see :meth:`testbed.fabric.devices.Driver.undo`."""
        kind = inverse.get("kind")
        if kind == "port":
            self._own_port(inverse["port"])
            states = {state.name: state.up for state in self.ports().values()}
            if states[inverse["port"]] != inverse["up"]:
                self._set_port(inverse["port"], up=bool(inverse["up"]), under=under)
        elif kind == "facts":
            here = config.of_block(self._facts(), inverse["block"])
            wanted = {tuple(fact) for fact in inverse["facts"]}
            if wanted != config.of_block(wanted, inverse["block"]):
                raise UsageError("this change is not one of this driver's", where=self.device.node)
            if here != wanted:
                self._configure(config.lines(here - wanted, wanted - here), under)
        else:
            raise UsageError("this change is not one of this driver's", where=self.device.node, found=str(kind))

    def _set_port(self, name: str, *, up: bool, under: Change) -> None:
        self._configure([f"interface {name}", "no shutdown" if up else "shutdown"], under)

    def _own_port(self, name: str) -> None:
        if name not in self.device.ports.values() or name in self.device.management:
            raise UsageError(
                "this port is not in the cable map, and is not touched", where=f"{self.device.node}:{name}"
            )

    # -- FastCli ---------------------------------------------------------------------------------------------------

    def _facts(self) -> set[config.Fact]:
        return config.facts(self.connection.read(_argv("show running-config")).stdout)

    def _interfaces(self) -> Mapping[str, Mapping[str, Any]]:
        rows: Mapping[str, Mapping[str, Any]] = self._json("show interfaces").get("interfaces", {})
        missing = [f"{port} ({name})" for port, name in self.device.ports.items() if name not in rows]
        if missing:
            raise InfrastructureError(
                "the cable map names ports that the device does not have",
                where=self.device.node,
                found="no " + ", ".join(missing),
                expected="of: " + ", ".join(sorted(rows)[:64]),
            )
        return rows

    def _json(self, command: str) -> Mapping[str, Any]:
        text = self.connection.read(_argv(f"{command} | json")).stdout
        try:
            tree = json.loads(text)
        except ValueError:
            tree = None
        if not isinstance(tree, dict):
            raise InfrastructureError(
                "EOS printed no JSON", where=f"{self.device.node}: {command} | json", found=repr(text[:200])
            )
        return tree

    def _configure(self, lines: Sequence[str], under: Change) -> None:
        """Have all lines taken, or none. Raises InfrastructureError with what EOS said."""
        complaints = self._session(lines, under) or self._session(["commit"], under)
        if complaints:
            self._session(["abort"], under)
            raise InfrastructureError(
                "EOS did not take the configuration, and none of it was committed",
                where=f"{self.device.node}: {'; '.join(lines)[:1500]}",
                found="; ".join(complaints),
            )

    def _session(self, lines: Sequence[str], under: Change) -> list[str]:
        """Give lines to the session; what EOS complains of, which it does with any exit code."""
        done = self.connection.write(_argv(_SESSION, *lines), under=under, root=False, accept=range(256))
        complaints = [line for line in done.stdout.splitlines() if line.startswith("% ")]
        return complaints or ([f"exit code {done.returncode}: {done.stderr[-500:]}"] if done.returncode else [])


def _argv(*lines: str) -> list[str]:
    return ["FastCli", "-p", "15", "-c", "\n".join(lines)]
