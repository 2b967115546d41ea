"""What a fabric of namespaces can do on this machine, found out by trying rather than by version numbers."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec

from testbed.fabric.protocols import Capabilities

#: What every fabric has that came up: a kernel that cannot do it fails the build.
_BUILT_IN = frozenset({"link-down", "path-probes", "reboot"})
#: What the field asks for and a namespace fabric does not offer.
_NOT_OFFERED = {
    "delay": "namespace fabrics do not delay packets on purpose",
    "ecn": "namespace switches do not mark congestion",
    "gray-loss": "namespace fabrics lose packets by reboots and cut links only",
    "hw-timestamps": "namespaces have no hardware that stamps packets",
    "mrc-nic": "no MRC endpoint runs on this fabric",
    "power": "namespaces have no power supply to switch",
    "trim": "namespace switches do not trim packets",
}

_LIBIPERF = "libiperf.so.0"


def find(*, rootless: bool) -> Capabilities:
    """Look at everything this machine may lack; about 2 ms.

    Args:
        rootless: whether the fabric is inside a user namespace.
    """
    reasons = {"iperf3": _against_iperf3(), "root": _against_root(rootless)}
    missing = _NOT_OFFERED | {name: reason for name, reason in reasons.items() if reason is not None}
    return Capabilities(_BUILT_IN | (reasons.keys() - missing.keys()), missing)


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
