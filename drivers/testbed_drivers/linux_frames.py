"""Packets out of a Linux host's ports, by a short program that is sent along, runs, and is gone: it needs Python 3."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Final

from testbed.errors import InfrastructureError, UnsupportedError
from testbed.fabric.frames import Exchanged, Frame
from testbed.lab.inventory import Device
from testbed_drivers.perport import NOT_FOUND
from testbed_drivers.ssh import CommandFailedError, Connection

_AGENT: Final = "frame_agent.py"
#: For starting and ending it, and for sending, on a slow device.
_BESIDE_S: Final = 60.0


class LinuxFrames:
    """A driver's share of it."""

    device: Device
    connection: Connection

    def exchange(self, run: str, frames: Sequence[Frame], *, rate: float, lead_s: float, listen_s: float) -> Exchanged:
        """See :class:`testbed.fabric.frames.FrameExchange`. Raises UnsupportedError without Python 3 there."""
        order = {
            "run": run,
            "ports": list(self.device.ports.values()),
            "frames": [
                [f.number, self.device.device_port(f.port), f.mac, f.source, f.destination, f.final, f.size]
                for f in frames
            ],
            "rate": rate,
            "lead_s": lead_s,
            "listen_s": listen_s,
        }
        agent = resources.files("testbed_drivers").joinpath(_AGENT).read_text(encoding="utf-8")
        argv = ["python3", "-c", agent]
        sending = sum(frame.size for frame in frames) * 8 / rate
        limit = lead_s + sending + listen_s + _BESIDE_S
        try:
            text = self.connection.read(argv, root=True, stdin=json.dumps(order).encode(), timeout_s=limit).stdout
        except CommandFailedError as error:
            if error.returncode == NOT_FOUND:
                found = "it has no python3"
            elif "PermissionError" in error.output or "Operation not permitted" in error.output:
                found = "its account may not open packet sockets: give its credential `sudo: true`"
            else:
                error.where = f"{self.device.node}: python3 (frame_agent.py)"
                raise
            raise UnsupportedError("no packets can be sent from it", where=self.device.node, found=found) from None
        return self._read(text)

    def _read(self, text: str) -> Exchanged:
        ports = {name: port for port, name in self.device.ports.items()}
        try:
            told = json.loads(text)
            return Exchanged(
                refused={int(number): str(why) for number, why in told["refused"].items()},
                received={int(number): ports[name] for number, name in told["received"].items()},
                send_s=float(told["send_s"]),
                took_s=float(told["took_s"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InfrastructureError(
                "the program that sends packets told something else than its outcome",
                where=self.device.node,
                found=repr(text[:200]),
            ) from None
