"""The wardens of a rig's devices, each started when something first runs there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from testbed.errors import UnsupportedError
from testbed.fabric.rig.rig import Rig
from testbed.fabric.rig.together import each
from testbed.fabric.rig.warden import Warden
from testbed.fabric.work import Programs

if TYPE_CHECKING:
    from collections.abc import Callable


class Wardens:
    """One a device.

    Args:
        rig: whose devices.
        guard: raises when they may not be touched any more.
        silence_s: after which a device that hears nothing ends what runs on it: one heartbeat of the lease.
    """

    def __init__(self, rig: Rig, guard: Callable[[], None], silence_s: float) -> None:
        self._rig = rig
        self._guard = guard
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._locks = {node: threading.Lock() for node in rig.devices}
        self._wardens: dict[str, Warden] = {}

    def of(self, node: str) -> Warden:
        """The one of a device; a new one where it was lost, as by a reboot. Raises UnsupportedError, and as it does."""
        with self._locks[node]:
            found = self._wardens.get(node)
            if found is None or not found.alive:
                if found is not None:
                    found.close()
                driver = self._rig.drivers[node]
                if not isinstance(driver, Programs):
                    raise UnsupportedError("nothing can be run on this device", where=node, found=driver.device.driver)
                found = Warden.start(node, driver, self._rig.changes, self._guard, self._silence_s)
                with self._lock:
                    self._wardens[node] = found
            return found

    def lose(self, node: str) -> None:
        """The device is going down: what ran on it has ended."""
        with self._locks[node], self._lock:
            found = self._wardens.pop(node, None)
        if found is not None:
            found.close()

    def close(self) -> None:
        """End all, and everything that runs."""
        with self._lock:
            wardens, self._wardens = dict(self._wardens), {}
        each(wardens, lambda node: wardens[node].close())
