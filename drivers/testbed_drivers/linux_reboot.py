"""Restarting a device that runs Linux: told by reboot(8), recognised by another boot ID (random(4))."""

from __future__ import annotations

import threading
from typing import Final

from testbed.errors import UsageError
from testbed.fabric.devices import Change, Changes
from testbed.lab.inventory import Device
from testbed_drivers.ssh import CommandFailedError, Connection, ConnectionLostError, DeviceSilentError, UnreachableError
from testbed_drivers.ssh.limits import Deadline

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_BETWEEN_LOOKS_S: Final = 0.2


class LinuxReboot:
    """A driver's share of it."""

    device: Device
    connection: Connection
    #: What restarts the device.
    reboot_command: tuple[str, ...] = ("reboot",)
    #: Seconds in which it has begun to.
    reboot_told_s = 15.0
    _boot_before = ""

    def reboot(self, changes: Changes) -> Change:
        """Have it restart; see :class:`testbed.fabric.abilities.Reboot`. Undoing it is to see that it is back."""
        self._boot_before = self._boot_id()
        # An entry of the journal says that it may be away; it is closed by whoever sees that it is back.
        change = changes.begin(self.device, "reboot", {"kind": "reboot", "boot": self._boot_before})
        try:
            self.connection.write(self.reboot_command, under=change, timeout_s=self.reboot_told_s)
        except (ConnectionLostError, DeviceSilentError):
            pass  # It went down before it could say that the command had ended.
        except CommandFailedError as error:
            if error.returncode != -1:  # By a signal: what a device that goes down does to its processes.
                change.undone()
                raise
        change.made()
        self.connection.drop()
        return change

    def wait_back(self, timeout_s: float) -> None:
        """Wait until it takes commands and its boot ID is another. Raises DeviceSilentError on the deadline."""
        if not self._boot_before:
            raise UsageError("it was not told to restart", where=self.device.node, remedy="call reboot() first")
        deadline, pause = Deadline(timeout_s), threading.Event()
        while True:
            found = "it still runs as before"
            try:
                if self._boot_id() != self._boot_before:
                    return
            except (UnreachableError, DeviceSilentError, ConnectionLostError) as error:
                found = error.message
            if deadline.over:
                raise DeviceSilentError(
                    "the device did not restart in time",
                    where=self.device.node,
                    found=found,
                    expected=f"another boot ID within {timeout_s:g} s",
                )
            pause.wait(min(_BETWEEN_LOOKS_S, deadline.left_s))

    def _boot_id(self) -> str:
        return self.connection.read(["cat", BOOT_ID]).stdout.strip()
