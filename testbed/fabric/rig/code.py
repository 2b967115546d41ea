"""Our own code on a rig's hosts: sent when first needed, gone with the lease."""

from __future__ import annotations

import secrets
import threading
from typing import Final

from testbed.errors import BedError, InfrastructureError, UnsupportedError
from testbed.fabric.rig.bundle import Bundle, bundle, python_name
from testbed.fabric.rig.rig import Rig
from testbed.fabric.rig.together import all_of, each, told
from testbed.fabric.rig.wardens import Wardens
from testbed.fabric.work import Folders, NicTables, Programs

_CHECK: Final = "import sys, numpy, isal, yaml, testbed.traffic.probes.agent; print(testbed.__version__)"
_CHECK_S: Final = 60.0


class HostCode:
    """The bundle, unpacked on every host of a rig."""

    def __init__(self, rig: Rig, wardens: Wardens) -> None:
        self._rig = rig
        self._wardens = wardens
        self._lock = threading.Lock()
        self._folders: dict[str, str] = {}
        #: Of the folders' names: one lease may have several fabrics, one after the other.
        self._mark = secrets.token_hex(4)
        self.python = python_name()

    def reason_against(self) -> str | None:
        """Why it cannot run on the hosts; None if it can. Asks them."""
        hosts = self._rig.lab.topology.hosts
        unable = [
            f"{host} ({self._rig.devices[host].driver})"
            for host in hosts
            if not isinstance(self._rig.drivers[host], Programs)
            or not isinstance(self._rig.drivers[host], Folders)
            or not isinstance(self._rig.drivers[host], NicTables)
        ]
        if unable:
            return f"these hosts' drivers run no programs of ours: {', '.join(unable[:8])}"
        wrong = {host: value for host, value in each(hosts, self._look).items() if value is not None}
        return "; ".join(f"{host}: {told(value)}" for host, value in list(wrong.items())[:8]) or None

    def _look(self, host: str) -> str | None:
        warden = self._wardens.of(host)
        made: Bundle = bundle()
        if warden.facts["machine"] != made.machine:
            return f"the machine is {warden.facts['machine']}, and this one {made.machine}"
        if not warden.facts["root"]:
            return "programs do not run as root there; remedy: log in as root, or give the credential sudo"
        try:
            process = warden.spawn([self.python, "-c", ""], env={}, fds={})
            process.wait(_CHECK_S)
        except BedError as error:
            return f"no {self.python} there, which the code is for: {told(error)}"
        return None

    def send(self) -> None:
        """Have it be on every host; nothing where it is. Raises InfrastructureError, UnsupportedError."""
        with self._lock:
            missing = [host for host in self._rig.lab.topology.hosts if host not in self._folders]
            if missing:
                bundle()
                all_of(missing, self._send, "the testbed's own code could not be sent to hosts", self._rig.lab.name)

    def _send(self, host: str) -> None:
        driver, made = self._rig.drivers[host], bundle()
        if not isinstance(driver, Folders):
            raise UnsupportedError("this device takes no files", where=host, found=driver.device.driver)
        folder = driver.unpack(f"{made.name}-{self._mark}-{host}", made.archive, self._rig.changes)
        process = self._wardens.of(host).spawn(
            [self.python, "-c", _CHECK], env={"PYTHONPATH": folder, "PYTHONNOUSERSITE": "1"}, fds={}
        )
        if process.wait(_CHECK_S) != 0:
            raise InfrastructureError(
                "the testbed's own code does not run on this host",
                where=host,
                found=process.output()[-1000:],
                expected=f"{self.python} and a C library at least as new as here",
            )
        self._folders[host] = folder

    def folder(self, host: str) -> str:
        """Where it is on a host."""
        self.send()
        return self._folders[host]
