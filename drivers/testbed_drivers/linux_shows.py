"""By which commands a person sees on a Linux device what its driver sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Capability → command, with ``{port}`` for the device's name of a port.
LINUX_SHOWS: Final[Mapping[str, str]] = {
    "versions": "uname -sr; ip -V",
    "clock": "date; chronyc tracking",
    "ports": "ip link show dev {port}",
    "speed": "ethtool {port}",
    "lldp": "lldpctl {port}",
    "fec": "ethtool -I --show-fec {port}",
    "optics": "ethtool -m {port}",
    "flow-control": "ethtool -a {port}; dcb pfc show dev {port}",
    "usids": "ip -d -6 route show table main",
}
