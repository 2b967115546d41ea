"""A host whose NIC is of the mlx5 family, as far as rdma and ethtool say: both are played, over real SSH.

A smoke test: what they print is as published, and no such NIC is there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed_drivers.mlx5 import Mlx5Host

from testbed.errors import UnsupportedError
from testbed.fabric.abilities import MrcPresence, NicCounterReading, NicCounters, Untold, require
from testbed.fabric.rig.rig import Rig
from testbed.lab import Tier
from tests.netns.conftest import TINY, realise
from tests.rig.netns_rig import NetnsRig
from tests.unit.drivers.goldens import golden

RDMA = """#!/bin/sh
case "$*" in
  "link show") echo "link mlx5_0/1 state ACTIVE physical_state LINK_UP netdev p0" ;;
  "statistic show link") cat {folder}/statistics ;;
  *) exit 1 ;;
esac
"""
ETHTOOL = """#!/bin/sh
[ "$1" = -i ] || exit 1
if [ "$2" = p0 ]; then
  printf 'driver: mlx5_core\\nversion: 6.18\\nfirmware-version: 40.45.1020\\nbus-info: 0000:03:00.0\\n'
else
  printf 'driver: veth\\nversion: 1.0\\nfirmware-version: \\n'
fi
"""


class NicRig(NetnsRig):
    """Its hosts have programs that tell of a NIC."""

    def _config(self) -> None:
        super()._config()
        programs = self.folder / "bin"
        programs.mkdir()
        (self.folder / "statistics").write_text(golden("rdma-statistic.txt").replace("mlx5_2/1", "mlx5_0/1"))
        for name, text in (("rdma", RDMA.format(folder=self.folder)), ("ethtool", ETHTOOL)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        with (self.folder / "config").open("a") as file:
            file.write(f"SetEnv PATH={programs}:/usr/sbin:/usr/bin:/sbin:/bin\n")

    def _described(self, database: str) -> dict[str, object]:
        described: dict[str, Any] = super()._described(database)
        for node, about in described["rig"]["nodes"].items():
            if self.fabric.lab.topology.tier(node) is Tier.HOST:
                about["driver"] = "mlx5-host"
        return described


@pytest.fixture(scope="module")
def devices() -> Iterator[NicRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        yield NicRig(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")


def test_a_ports_counters_are_told_and_a_port_of_another_family_is_not(devices: NicRig) -> None:
    with Rig(devices.lab) as rig:
        found = require(rig.drivers["h0"], NicCounterReading).nic_counters()
    own = found["p0"]
    assert isinstance(own, NicCounters)
    assert own.device == "mlx5_0/1"
    assert own.raw["rx_write_requests"] == 8
    assert own.common["out_of_order"] == 0
    assert found["p1"] == Untold("its driver is veth, not mlx5_core")


def test_firmware_is_among_the_versions(devices: NicRig) -> None:
    with Rig(devices.lab) as rig:
        host = rig.drivers["h0"]
        assert isinstance(host, Mlx5Host)
        found = host.versions()
    assert (found["driver p0"], found["firmware p0"]) == ("mlx5_core", "40.45.1020")
    assert "firmware p1" not in found


def test_whether_it_does_mrc_is_refused_with_the_reason(devices: NicRig) -> None:
    with Rig(devices.lab) as rig, pytest.raises(UnsupportedError, match=r"no 'mrc'(?s:.*)nothing published says"):
        require(rig.drivers["h0"], MrcPresence)
