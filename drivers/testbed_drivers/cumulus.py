"""Switches that run Cumulus Linux: read as Linux, ports set by NVUE, which would set them back otherwise.

`nv set interface PORT link state up|down`, `nv config diff`, `nv config apply -y` and `nv config detach` from NVIDIA's
Cumulus Linux user guide (NVUE CLI; Interface Configuration and Management). Since 5.9 what is applied is also saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testbed.errors import InfrastructureError
from testbed.fabric.devices import NEVER_ON_HARDWARE, Change, Changes, Inverse
from testbed_drivers.linux import LinuxHost
from testbed_drivers.ssh import CommandFailedError

#: Applies what is pending; ``-y`` answers its question whether to.
APPLY: Final = ("nv", "config", "apply")


def link_state(name: str, *, up: bool) -> list[str]:
    """The arguments that make a port's state pending."""
    return ["nv", "set", "interface", name, "link", "state", "up" if up else "down"]


class Cumulus(LinuxHost):
    """A switch, of which the uSID table cannot be written yet."""

    verified_on = NEVER_ON_HARDWARE
    refused: Mapping[str, str] = {
        "usids": "no published NVUE command was found for a static route by a link-local address over a port",
        "trimming": "the commands of `nv set system forwarding packet-trim` are not driven yet",
        "wred": "the commands of NVUE's QoS are not driven yet",
        "nic-counters": "it is a switch",
        "mrc": "it is a switch",
    }

    def set_port(self, port: str, *, up: bool, changes: Changes) -> Change | None:
        """Set a port of the fabric up or down. Raises InfrastructureError where somebody's changes are pending."""
        name = self.device.device_port(port)
        if self._states()[port].up == up:
            return None
        self._refuse_pending()
        inverse = {"kind": "nvue-port", "port": name, "up": not up}
        change = changes.begin(self.device, f"{port} {'up' if up else 'down'}", inverse)
        self._apply(name, up=up, under=change)
        change.made()
        return change

    def undo(self, inverse: Inverse, under: Change) -> None:
        """Undo a change; see :meth:`testbed.fabric.devices.Driver.undo`."""
        if inverse.get("kind") != "nvue-port":
            super().undo(inverse, under)
            return
        self._own_port(inverse["port"])
        port = next(port for port, name in self.device.ports.items() if name == inverse["port"])
        if self._states()[port].up != inverse["up"]:
            self._refuse_pending()
            self._apply(inverse["port"], up=bool(inverse["up"]), under=under)

    def _apply(self, name: str, *, up: bool, under: Change) -> None:
        self._own_port(name)
        self._write(link_state(name, up=up), under)
        try:
            self._write([*APPLY, "-y"], under)
        except CommandFailedError:
            self._write(["nv", "config", "detach"], under)
            raise

    def _refuse_pending(self) -> None:
        """What is pending would be applied with ours."""
        pending = self.connection.read(["nv", "config", "diff"], root=True).stdout.strip()
        if pending:
            raise InfrastructureError(
                "changes of somebody's are pending on it, and would be applied with this run's",
                where=self.device.node,
                found=pending[:500],
                remedy="`nv config apply` or `nv config detach` there",
            )
