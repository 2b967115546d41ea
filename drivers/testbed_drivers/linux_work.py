"""What Linux devices do for a run beside being configured: programs, files, addresses of a NIC, reboots."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.devices import Change, Changes, Inverse, UsidRoute
from testbed.fabric.work import Conversation, HostAddress, HostRoute, HostTable
from testbed.lab.inventory import Device
from testbed_drivers import iproute
from testbed_drivers.iproute import GATEWAY
from testbed_drivers.ssh import CommandFailedError, Connection, ConnectionLostError, DeviceSilentError
from testbed_drivers.ssh.limits import Deadline

LOOPBACK: Final = "lo"
#: SIDs hang on this interface: one that never goes down, for its routes would go with it.
SID_DEVICE: Final = "sid0"
#: Where files of ours are for as long as a lease lasts; on disk, for they may be large.
FILES: Final = "/var/tmp"  # noqa: S108 - the name behind it is one that nobody else has, and must not be there.
_NAME: Final = re.compile(r"mrc-testbed-[A-Za-z0-9._-]{1,120}")
_REBOOT: Final = ("systemctl", "reboot")
_GOES_DOWN_S, _COMES_BACK_S, _LOOK_S = 120.0, 900.0, 0.01
_UNPACK_S: Final = 120.0


class LinuxWork(ABC):
    """See the protocols of :mod:`testbed.fabric.work`."""

    device: Device
    connection: Connection

    @abstractmethod
    def _json(self, *argv: str) -> str: ...

    @abstractmethod
    def _write(self, argv: Sequence[str], under: Change) -> None: ...

    @abstractmethod
    def _routes(self) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _addresses(self) -> list[tuple[str, dict[str, Any]]]: ...

    @abstractmethod
    def _neighbours(self) -> list[iproute.Neighbour]: ...

    @abstractmethod
    def _neighbour_steps(self, peers: Mapping[str, str]) -> list[tuple[dict[str, Any], list[str]]]: ...

    # -- programs and files -----------------------------------------------------------------------------------------

    def converse(self, argv: Sequence[str], changes: Changes) -> tuple[Conversation, Change]:
        """Start a program as root that ends when its input does."""
        change = changes.begin(self.device, f"runs {argv[0]}", {"kind": "program"})
        try:
            conversation = self.connection.converse(argv, under=change)
        except BaseException:
            change.undone()
            raise
        change.made()
        return conversation, change

    def unpack(self, name: str, archive: bytes, changes: Changes) -> str:
        """Unpack a tar archive into a new folder; returns its path."""
        path = _folder(f"{FILES}/mrc-testbed-{name}")
        change = changes.begin(self.device, f"folder {path}", {"kind": "folder", "path": path})
        self._write(["mkdir", "-m", "755", path], change)
        try:
            self.connection.write(
                ["tar", "-xzf", "-", "-C", path, "--no-same-owner"], under=change, stdin=archive, timeout_s=_UNPACK_S
            )
        except CommandFailedError as error:
            raise InfrastructureError(
                "files cannot be unpacked on this device", where=self.device.node, found=error.output, expected=path
            ) from error
        change.made()
        return path

    # -- a NIC's addresses ------------------------------------------------------------------------------------------

    def nic_table(self, block: str, wanted: HostTable) -> HostTable:
        """What of the wanted addresses, and what of the block's routes, the device has."""
        port_of = {name: port for port, name in self.device.ports.items()} | {LOOPBACK: ""}
        here = {HostAddress(at["local"], port_of[name]) for name, at in self._addresses() if name in port_of}
        routes = [
            HostRoute(route.prefix, port_of.get(route.port, route.port), source)
            for route, source in self._block_routes(block)
        ]
        return HostTable(tuple(sorted(here & set(wanted.addresses))), tuple(sorted(routes)))

    def _block_routes(self, block: str) -> list[tuple[UsidRoute, str]]:
        found = []
        for row in self._routes():
            # Whatever decapsulates ordinary traffic is no way to a switch, nor is what an address brings with it.
            ours = "encap" not in row and row.get("protocol") != "kernel"
            routes = iproute.usid_routes([row], block) if ours else []
            found += [(route, str(row.get("prefsrc", ""))) for route in routes]
        return found

    def install_nic(self, block: str, wanted: HostTable, peers: Mapping[str, str], changes: Changes) -> Change | None:
        """Have the NIC be as wanted, and read it back; see the protocol."""
        here = self.nic_table(block, wanted)
        steps: list[tuple[dict[str, Any], list[str]]] = []
        for address in (each for each in wanted.addresses if each not in here.addresses):
            port = self.device.device_port(address.port) if address.port else LOOPBACK
            told = {"local": address.address, "prefixlen": 128, "noprefixroute": True}
            steps.append(({"kind": "address", "port": port, "address": told}, iproute.address_add(told, port)))
        steps += self._neighbour_steps({self.device.device_port(port): mac for port, mac in peers.items()})
        rows = self._routes()
        for prefix in sorted({each.prefix for each in (*wanted.routes, *here.routes)}):
            old = [route for route in here.routes if route.prefix == prefix]
            new = [route for route in wanted.routes if route.prefix == prefix]
            if old == new:
                continue
            before = self._restorable(iproute.of_prefix(rows, prefix))
            argv = ["ip", "-6", "route", "del", prefix]
            if new:
                (route,) = new
                way = ["via", GATEWAY, "dev", self.device.device_port(route.port), "src", route.source]
                argv = ["ip", "-6", "route", "replace", prefix, *way, "proto", "static"]
            steps.append(({"kind": "route", "prefix": prefix, "before": before}, argv))
        if not steps:
            return None
        inverse = {"kind": "table", "steps": [undo for undo, _ in steps]}
        change = changes.begin(self.device, f"addresses and routes of {len(self.device.ports)} ports", inverse)
        for _, argv in steps:
            self._write(argv, change)
        change.made()
        found = self.nic_table(block, wanted)
        if found != wanted:
            raise InfrastructureError(
                "addresses and routes of the NIC, read back, are others than were written",
                where=self.device.node,
                found=str(found)[:2000],
                expected=str(wanted)[:2000],
            )
        return change

    def _restorable(self, found: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The route that is there, which can be put back. Raises InfrastructureError for what could not be."""
        if len(found) > 1:
            raise InfrastructureError(
                "several routes for one prefix cannot be put back, so they are not touched",
                where=self.device.node,
                found=f"{len(found)} for {found[0].get('dst')}",
            )
        for route in found:
            iproute.raw_route("replace", route)
        return found[0] if found else None

    # -- reboots ----------------------------------------------------------------------------------------------------

    def reboot(self, changes: Changes) -> Change:
        """Have it reboot, and return when it answers no more."""
        argv = self.device.reboot or _REBOOT
        change = changes.begin(self.device, "reboot", {"kind": "reboot", **self._would_lose()})
        try:
            self._write(argv, change)
        except (ConnectionLostError, DeviceSilentError):
            pass  # It went down before it could say so.
        except BaseException:
            change.undone()
            raise
        deadline, pause = Deadline(_GOES_DOWN_S), threading.Event()
        while self.connection.connected:
            if deadline.over:
                raise InfrastructureError(
                    "the device was told to reboot, and did not go down",
                    where=self.device.node,
                    found=" ".join(argv),
                    expected=f"the end of its connection within {_GOES_DOWN_S:.0f} s",
                )
            pause.wait(_LOOK_S)
        change.made()
        return change

    def wait_back(self, timeout_s: float) -> None:
        """Wait until it takes commands again."""
        self.connection.wait_back(timeout_s)

    # -- undoing ----------------------------------------------------------------------------------------------------

    def _undo_work(self, inverse: Inverse, under: Change) -> bool:
        """Undo one of these changes; False where it is none."""
        kind = inverse.get("kind")
        if kind == "program":
            return True  # It ended with the connection, or in silence.
        if kind == "folder":
            self._write(["rm", "-rf", "--", _folder(inverse["path"])], under)
        elif kind == "address":
            self._undo_address(inverse["port"], inverse["address"], under)
        elif kind == "reboot":
            self._undo_reboot(inverse, under)
        else:
            return False
        return True

    def _would_lose(self) -> dict[str, Any]:
        """What of the fabric a device may hold unsaved: static routes and neighbours of its ports, and its SIDs."""
        own = {*self.device.ports.values(), SID_DEVICE}
        routes = [iproute.settled(route) for route in self._routes() if route.get("dev") in own]
        routes = [route for route in routes if route.get("protocol") == "static"]
        for route in routes:
            iproute.raw_route("replace", route)
        neighbours = [list(each) for each in self._neighbours() if each.port in own]
        return {"routes": routes, "neighbours": neighbours, "sids": self._has_sid_device()}

    def _undo_reboot(self, inverse: Inverse, under: Change) -> None:
        self.wait_back(_COMES_BACK_S)
        if inverse["sids"] and not self._has_sid_device():
            self._write(iproute.sid_device_add(SID_DEVICE), under)
        for neighbour in inverse["neighbours"]:
            self._write(iproute.neighbour_replace(iproute.Neighbour(*neighbour)), under)
        here = [iproute.settled(route) for route in self._routes()]
        for route in (each for each in inverse["routes"] if each not in here):
            self._write(iproute.raw_route("replace", route), under)

    def _has_sid_device(self) -> bool:
        return SID_DEVICE in iproute.port_states(self._json("ip", "-j", "link", "show"))

    def _undo_address(self, port: str, address: Mapping[str, Any], under: Change) -> None:
        here = {(name, at["local"]) for name, at in self._addresses()}
        if (port, address["local"]) in here:
            self._write(
                ["ip", "-6", "address", "del", f"{address['local']}/{address['prefixlen']}", "dev", port], under
            )


def _folder(path: str) -> str:
    """A folder of ours. Raises UsageError for any other."""
    parent, _, name = path.rpartition("/")
    if parent != FILES or not _NAME.fullmatch(name):
        raise UsageError("this is no folder of the testbed's, and is not touched", found=path)
    return path
