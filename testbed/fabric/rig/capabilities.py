"""What a rig can do, by what the drivers of its devices can; what it cannot is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from testbed.fabric.devices import LinkControl, UsidRoutes
from testbed.fabric.protocols import Capabilities
from testbed.fabric.rig.clocks import reason_against_clocks
from testbed.fabric.rig.code import HostCode
from testbed.fabric.rig.rig import Rig
from testbed.fabric.rig.wardens import Wardens
from testbed.fabric.work import Programs, Reboots

_RULES: Final = "no driver makes a device do this to chosen packets"
_NOT_OFFERED: Final[Mapping[str, str]] = {
    "control": "a device that takes no commands and still forwards cannot be made of a real one",
    "corruption": _RULES,
    "delay": "no driver delays packets",
    "duplication": _RULES,
    "ecn": "no driver reads how many packets a switch marked",
    "ecn-mark": _RULES,
    "gray-loss": _RULES,
    "hw-timestamps": "no driver reads the stamps of NICs",
    "iperf3": "ordinary IPv6 is not set up on the hosts of a rig",
    "power": "there is no driver for power yet",
    "rate": "no driver shapes a port",
    "routes": "no driver takes single routes away",
    "spray": "ordinary IPv6 is not set up on the hosts of a rig",
    "trim": "no driver sets trimming up",
}
_OF_OUR_CODE: Final = ("path-probes", "mrc-nic")


def find(rig: Rig, wardens: Wardens, code: HostCode) -> Capabilities:
    """Ask drivers what they can, and hosts whether our own code runs there."""
    topology = rig.lab.topology
    reasons: dict[str, str | None] = {
        "link-down": _lacking(rig, [*topology.hosts, *topology.switches], LinkControl, "cannot set ports"),
        "reboot": _lacking(rig, topology.switches, Reboots, "cannot reboot")
        or _lacking(rig, topology.switches, UsidRoutes, "cannot be given tables"),
        "processes": _lacking(rig, topology.hosts, Programs, "cannot run programs"),
    }
    against = code.reason_against() or reason_against_clocks(topology.hosts, wardens)
    reasons |= dict.fromkeys((*_OF_OUR_CODE, "root"), against)
    missing = {**_NOT_OFFERED, **{name: reason for name, reason in reasons.items() if reason is not None}}
    return Capabilities(frozenset(reasons.keys() - missing.keys()), missing)


def _lacking(rig: Rig, nodes: list[str] | tuple[str, ...], protocol: type, cannot: str) -> str | None:
    unable = [f"{node} ({rig.devices[node].driver})" for node in nodes if not isinstance(rig.drivers[node], protocol)]
    return f"these {cannot}: {', '.join(unable[:8])}" if unable else None
