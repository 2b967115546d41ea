"""When a process on a device is ready."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Final

from testbed.errors import InfrastructureError
from testbed.fabric.protocols import Ready
from testbed.fabric.rig.warden.client import Warden
from testbed.fabric.rig.warden.handed import Told
from testbed.fabric.rig.warden.process import RigProcess

_ERROR_TAIL: Final = 2000
_POLL_S: Final = 0.01
_TABLES: Final = tuple(f"/proc/net/{name}" for name in ("tcp", "tcp6", "udp", "udp6"))
_LISTENING: Final = "0A"


def wait_ready(process: RigProcess, ready: Ready, told: Told, warden: Warden) -> None:
    """Wait until a process is ready. Raises InfrastructureError, and ends it, if it does not become so."""
    is_ready = _readiness(process, ready, told, warden)
    deadline, pause = time.monotonic() + ready.timeout_s, threading.Event()
    while not is_ready():
        code = process.poll()
        # What it had said by then may have come with its end.
        if code is not None and not is_ready():
            raise InfrastructureError(
                process.lost or f"{process.argv[0]} on {process.node} ended with exit code {code} before it was ready",
                found=process.output()[-_ERROR_TAIL:],
            )
        if time.monotonic() > deadline:
            process.stop()
            raise InfrastructureError(
                f"{process.argv[0]} on {process.node} was not ready within {ready.timeout_s} s",
                expected=str(ready),
                found=process.output()[-_ERROR_TAIL:],
            )
        pause.wait(_POLL_S)


def _readiness(process: RigProcess, ready: Ready, told: Told, warden: Warden) -> Callable[[], bool]:
    if ready.fd:
        return told.ready.is_set
    if ready.line is not None:
        pattern = re.compile(ready.line, re.MULTILINE)
        return lambda: pattern.search(process.output()) is not None
    if ready.port is not None:
        port = ready.port
        return lambda: port in _ports(warden)
    return lambda: True


def _ports(warden: Warden) -> set[int]:
    """TCP ports listened on and UDP ports bound on the device."""
    ports = set()
    for table, text in warden.files(_TABLES).items():
        for line in (text or "").splitlines()[1:]:
            fields = line.split()
            if "udp" in table or fields[3] == _LISTENING:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports
