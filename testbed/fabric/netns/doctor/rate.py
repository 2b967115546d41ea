"""How many packets a second one process gets through three uSID switches here."""

from __future__ import annotations

import json
from dataclasses import dataclass

from testbed.errors import InfrastructureError
from testbed.fabric.netns import executed, processes
from testbed.fabric.netns.doctor.visit import small_fabric

_SECONDS = 3.0
_PAYLOAD = 1000
#: Labs are to stay below this share of it: the rest is for receiving, and for what else the machine does.
_SHARE = 0.4
_FIRST_NAMESPACE_FD = 8


@dataclass(frozen=True)
class Calibration:
    """What was sent and what arrived.

    Attributes:
        sent: packets one Python process sent, each of ``payload_bytes`` behind the IPv6 header, as fast as it could.
        arrived: packets the last switch shifted and passed on to the destination host, by its counter.
        seconds: over which.
    """

    sent: int
    arrived: int
    seconds: float
    payload_bytes: int = _PAYLOAD

    @property
    def packets_per_s(self) -> float:
        """Rate of arrival."""
        return self.arrived / self.seconds

    @property
    def advised_packets_per_s(self) -> float:
        """What labs should stay below, all their senders together on this many cores."""
        return _SHARE * self.packets_per_s


def calibrate() -> Calibration:
    """Measure for some 3 s. Raises InfrastructureError or UnsupportedError where no fabric can run."""
    with small_fabric() as fabric:
        src, dst = fabric.lab.topology.hosts
        request = {
            "namespaces": [_FIRST_NAMESPACE_FD, _FIRST_NAMESPACE_FD + 1],
            "destination": str(fabric.addresses.destination(src, dst, fabric.addresses.evs(src, dst)[0])),
            "size": _PAYLOAD,
            "seconds": _SECONDS,
        }
        numbers = [fabric.plan.namespaces[node] for node in (src, dst)]
        last = fabric.switch(fabric.lab.topology.t0s[-1])
        before = last.usid_counters().shifted
        with processes.open_memory() as source:
            source.write(json.dumps(request).encode())
            source.seek(0)
            process = processes.start(
                fabric.client,
                src,
                numbers[0],
                executed.command("testbed.fabric.netns.doctor.rate_agent"),
                None,
                fds={0: source.fileno()},
                namespace_fds={_FIRST_NAMESPACE_FD + place: number for place, number in enumerate(numbers)},
            )
        code = process.wait(_SECONDS + 10.0)
        if code != 0:
            raise InfrastructureError("the calibration's sender failed", found=process.output()[-2000:])
        told = json.loads(process.output())
        arrived = last.usid_counters().shifted - before
    return Calibration(told["sent"], arrived, told["ns"] / 1e9)
