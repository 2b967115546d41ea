"""NICs of one family: what rdma(8) of iproute2 shows of their counters, by common names.

`rdma link show` and `rdma statistic show link` print a line a port (rdma-link(8), rdma-statistic(8)); the counters are
those of /sys/class/infiniband/DEVICE/ports/PORT/hw_counters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from testbed.errors import UnsupportedError
from testbed.fabric.abilities import NicCounters, Untold
from testbed_drivers import ethtool
from testbed_drivers.linux import LinuxHost
from testbed_drivers.perport import NOT_FOUND
from testbed_drivers.ssh import CommandFailedError

#: `link mlx5_0/1 …`, and `8/1: mlx5_0/1: …` of older versions.
_PORT: Final = re.compile(r"^(?:link |\d+/\d+: )([^\s/]+/\d+):? (.*)$")
_ALL_ONES: Final = (1 << 64) - 1


def links(text: str) -> dict[str, str]:
    """Network interface → RDMA device and port, of ``rdma link show``."""
    found = {}
    for line in text.splitlines():
        match = _PORT.match(line.strip())
        words = [] if match is None else match[2].split()
        if match is not None and "netdev" in words[:-1]:
            found[words[words.index("netdev") + 1]] = match[1]
    return found


def statistics(text: str) -> dict[str, dict[str, int]]:
    """RDMA device and port → counter → value, of ``rdma statistic show link``; all-ones is no value."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        match = _PORT.match(line.strip())
        if match is not None:
            words = match[2].split()
            pairs = zip(words[::2], words[1::2], strict=False)
            values = {name: int(value) for name, value in pairs if value.isdecimal()}
            found[match[1]] = {name: value for name, value in values.items() if value != _ALL_ONES}
    return found


class RdmaHost(LinuxHost):
    """A host whose ports in the cable map are of one family of NICs.

    Attributes:
        kernel_driver: what ``ethtool -i`` calls the family's driver.
        common_names: common name → the family's.
        narrow: bits of counters that are narrower than 64, by the family's name.
        distrusted: counters that are not what their name says.
    """

    kernel_driver: ClassVar[str]
    common_names: ClassVar[Mapping[str, str]] = {}
    narrow: ClassVar[Mapping[str, int]] = {}
    distrusted: ClassVar[frozenset[str]] = frozenset()
    capabilities = LinuxHost.capabilities | {"nic-counters"}
    refused: Mapping[str, str] = {
        "trimming": "a NIC trims no packets",
        "mrc": "nothing published says how the NIC's software tells whether it does MRC, nor its entropy values",
    }

    def nic_counters(self) -> Mapping[str, NicCounters | Untold]:
        """Port of the fabric → counters of its NIC. Raises UnsupportedError without rdma of iproute2."""
        where = links(self._rdma("link", "show"))
        found = statistics(self._rdma("statistic", "show", "link"))
        drivers = self._said('ethtool -i "$p"')
        out: dict[str, NicCounters | Untold] = {}
        for port, name in self.device.ports.items():
            driver = ethtool.driver_info(drivers[port].output).get("driver", "")
            device = where.get(name, "")
            if driver != self.kernel_driver:
                out[port] = Untold(f"its driver is {driver or 'unknown'}, not {self.kernel_driver}")
            elif device not in found:
                out[port] = Untold("rdma shows no counters of it")
            else:
                out[port] = self.counted(found[device], device)
        return out

    @classmethod
    def counted(cls, raw: Mapping[str, int], device: str) -> NicCounters:
        """Counters by the family's names → both kinds of names."""
        kept = {name: value for name, value in raw.items() if name not in cls.distrusted}
        names = {common: own for common, own in cls.common_names.items() if own in kept}
        return NicCounters(
            common={common: kept[own] for common, own in names.items()},
            raw=kept,
            wraps={common: cls.narrow[own] for common, own in names.items() if own in cls.narrow},
            device=device,
        )

    def _rdma(self, *words: str) -> str:
        try:
            return self.connection.read(["rdma", *words]).stdout
        except CommandFailedError as error:
            if error.returncode == NOT_FOUND or "NETLINK_RDMA" in error.output:
                raise UnsupportedError("it shows no RDMA devices", where=self.device.node, found=error.output) from None
            raise
