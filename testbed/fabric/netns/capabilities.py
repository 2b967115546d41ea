"""What a fabric of namespaces can do on this machine, found out by trying rather than by version numbers."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec

from testbed.fabric.protocols import Capabilities
from testbed.lab import Lab, Tier

#: What every fabric has that came up: a kernel that cannot do it fails the build.
_BUILT_IN = frozenset({"link-down", "mrc-nic", "path-probes", "reboot"})
#: What the field asks for and a namespace fabric does not offer.
_NOT_OFFERED = {
    "delay": "namespace fabrics do not delay packets on purpose",
    "gray-loss": "namespace fabrics lose packets by reboots and cut links only",
    "hw-timestamps": "namespaces have no hardware that stamps packets",
    "power": "namespaces have no power supply to switch",
    "trim": "namespace switches do not trim packets",
}

_LIBIPERF = "libiperf.so.0"


def find(lab: Lab, *, rootless: bool, cannot_mark: str | None) -> Capabilities:
    """Look at everything this machine may lack; about 2 ms.

    Args:
        lab: what the fabric realises.
        rootless: whether the fabric is inside a user namespace.
        cannot_mark: why the kernel refused to mark packets; None where it does, or was not asked to.
    """
    reasons = {
        "ecn": _against_ecn(lab, cannot_mark),
        "iperf3": _against_iperf3(),
        "root": _against_root(rootless),
    }
    missing = _NOT_OFFERED | {name: reason for name, reason in reasons.items() if reason is not None}
    return Capabilities(_BUILT_IN | (reasons.keys() - missing.keys()), missing)


def _against_ecn(lab: Lab, cannot_mark: str | None) -> str | None:
    if lab.emulated_rate is None:
        return f"the links of {lab.name} are unshaped, so that none of them queues; remedy: give link.rate"
    if lab.ecn_bytes is None:
        return f"{lab.name} says link.ecn: off; remedy: remove it, or give a threshold"
    if not any(lab.topology.tier(link.a.node) is Tier.T0 for link in lab.topology.links):
        return f"{lab.name} has no link between two switches, and the last hop never marks; remedy: t1_per_plane: 1"
    if cannot_mark is not None:
        return (
            f"the kernel cannot mark packets that leave an interface: {cannot_mark}; remedy: a kernel with nf_tables, "
            "its netdev family and egress hook (5.16 or newer), and limit, numgen, objref"
        )
    return None


def _against_root(rootless: bool) -> str | None:
    return "an ordinary user made this fabric, in a user namespace; remedy: run as root" if rootless else None


def _against_iperf3() -> str | None:
    if find_spec("iperf3") is None:
        return "the Python package iperf3 is not installed; remedy: pip install iperf3"
    try:
        ctypes.CDLL(_LIBIPERF)
    except OSError as error:
        return (
            f"{error}; remedy: apt install libiperf0 (Debian, Ubuntu), or your distribution's package with {_LIBIPERF}"
        )
    return None
