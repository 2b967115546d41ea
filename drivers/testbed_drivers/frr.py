"""Switches that run Linux with FRR: its staticd routes to ports and drops, the kernel's own seg6local is the uN.

`ipv6 route PREFIX GATEWAY INTERFACE` and `ipv6 route PREFIX blackhole` from FRR's user guide, "Static". FRR's static
SIDs are newer than what distributions have, and its start-up may drop them silently: they are not used. Only the
running configuration is changed; what `write memory` would keep is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.devices import NEVER_ON_HARDWARE, Change, Changes, Does, Inverse, UsidRoute
from testbed_drivers import iproute
from testbed_drivers.linux import LinuxSwitch, Step
from testbed_drivers.tables import address_of, await_same, inside, link_local

#: staticd hands routes to zebra, and zebra to the kernel.
SETTLES_S: Final = 10.0
_ROUTE: Final = "ipv6 route "


class FrrSwitch(LinuxSwitch):
    """A switch whose routes FRR keeps: they come back with their port by themselves."""

    verified_on = NEVER_ON_HARDWARE

    def version(self) -> str:
        """Kernel, iproute2 and FRR."""
        frr = self._vtysh("show version").splitlines()
        return f"{super().version()}, {frr[0].strip() if frr else 'FRR'}"

    def install(
        self, block: str, routes: Sequence[UsidRoute], peers: Mapping[str, str], changes: Changes
    ) -> list[Change]:
        """Have the block's table be exactly this, and read it back from the kernel; see the protocol."""
        made = self._make(block, routes, peers, changes)
        await_same(self.device.node, routes, lambda: self.usid_routes(block), SETTLES_S)
        return made

    def undo(self, inverse: Inverse, under: Change) -> None:
        """Undo a change; see :meth:`testbed.fabric.devices.Driver.undo`."""
        if inverse.get("kind") == "frr":
            if any(not line.removeprefix("no ").startswith(_ROUTE) for line in inverse["lines"]):
                raise UsageError("this change is not one of this driver's", where=self.device.node)
            here = self._lines()
            lines = [line for line in inverse["lines"] if (line.removeprefix("no ") in here) == line.startswith("no ")]
            if lines:
                self._configure(lines, under)
        else:
            super().undo(inverse, under)

    def _route_steps(self, block: str, routes: Sequence[UsidRoute], peers: Mapping[str, str]) -> list[Step]:
        lines = [line for line in self._lines() if inside(line.split()[2], block)]
        wanted = {self._line(route, peers): route for route in routes if route.does is not Does.UN}
        gone = [line for line in lines if line not in wanted]
        new = [line for line in wanted if line not in lines]
        for line in new:
            if wanted[line].port:
                self._own_port(wanted[line].port)
        prefixes = {line.split()[2] for line in (*lines, *wanted)}
        # What FRR is to have or has is not the kernel's to be changed.
        kept = [
            route
            for route in iproute.usid_routes(self._routes(), block)
            if route.prefix in prefixes and route.does is not Does.UN
        ]
        steps = super()._route_steps(block, [*(route for route in routes if route.does is Does.UN), *kept], peers)
        if gone or new:
            undo = [*(f"no {line}" for line in new), *gone]
            steps.append(({"kind": "frr", "lines": undo}, _argv([*(f"no {line}" for line in gone), *new])))
        return steps

    @staticmethod
    def _comes_back(route: Mapping[str, Any]) -> bool:
        """What zebra installed, by a next hop object of its own, it installs again."""
        return "nhid" in route

    @staticmethod
    def _gateway(mac: str) -> str:
        """Another for each port: staticd 8.4 tracks next hops by address alone, and installs one of several alike."""
        return address_of(mac)

    @staticmethod
    def _line(route: UsidRoute, peers: Mapping[str, str]) -> str:
        how = "blackhole" if route.does is Does.DROP else f"{link_local(route, peers)} {route.port}"
        return f"{_ROUTE}{route.prefix} {how}"

    def _lines(self) -> list[str]:
        """The static IPv6 routes of the running configuration."""
        lines = self._vtysh("show running-config").splitlines()
        return [line.strip() for line in lines if line.startswith(_ROUTE)]

    def _configure(self, lines: Sequence[str], under: Change) -> None:
        self._write(_argv(lines), under)

    def _write(self, argv: Sequence[str], under: Change) -> None:
        done = self.connection.write(argv, under=under)
        if argv[0] == "vtysh":
            self._refuse_complaints(done.stdout, argv)

    def _vtysh(self, command: str) -> str:
        text = self.connection.read(["vtysh", "-c", command], root=True).stdout
        self._refuse_complaints(text, ["vtysh", "-c", command])
        return text

    def _refuse_complaints(self, text: str, argv: Sequence[str]) -> None:
        """Raise InfrastructureError for what vtysh prints with exit code 0 and has not done."""
        complaints = [line for line in text.splitlines() if line.startswith("% ")]
        if complaints:
            raise InfrastructureError(
                "vtysh did not do it", where=f"{self.device.node}: {' '.join(argv)[:500]}", found="; ".join(complaints)
            )


def _argv(lines: Sequence[str]) -> list[str]:
    argv = ["vtysh", "-c", "configure terminal"]
    for line in lines:
        argv += ["-c", line]
    return argv
