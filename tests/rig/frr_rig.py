"""A fabric of namespaces whose switches run real FRR: zebra and staticd in each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from testbed_drivers.frr import FrrSwitch

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.rig.rig import Rig
from testbed.lab import Tier
from testbed.pytest_plugin.outcomes import NOT_RUN
from tests.rig.netns_rig import NetnsRig
from tests.rig.sshd import ROOT

#: /run is each switch's own, so the daemons' paths are the usual ones.
START = """
mkdir -p /run/frr && chown frr:frr /run/frr
/usr/lib/frr/zebra -d -f /dev/null && /usr/lib/frr/staticd -d -f /dev/null
"""


class FrrRig(NetnsRig):
    """Its switches run FRR."""

    def __init__(self, fabric: NetnsFabric, folder: Path, database: str) -> None:
        if not Path("/usr/lib/frr/staticd").exists() or not shutil.which("vtysh"):
            pytest.skip(f"{NOT_RUN}needs FRR (Debian's frr)")
        if not ROOT:
            pytest.skip(f"{NOT_RUN}needs root: FRR changes its user")
        super().__init__(fabric, folder, database)
        with Rig(self.lab) as rig:
            for node in self.lab.topology.switches:
                made = rig.drivers[node]
                assert isinstance(made, FrrSwitch)
                made.connection.read(["sh", "-c", START])

    def _described(self, database: str) -> dict[str, object]:
        described: dict[str, Any] = super()._described(database)
        for node, about in described["rig"]["nodes"].items():
            if self.fabric.lab.topology.tier(node) is not Tier.HOST:
                about["driver"] = "frr-switch"
        return described
