"""A fabric of namespaces whose switches answer as a vendor's do."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from testbed_drivers.iproute import GATEWAY

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.netns.ping import Pinging, legs
from testbed.fabric.rig.rig import Rig
from testbed.lab import Tier
from testbed.pytest_plugin.outcomes import NOT_RUN
from tests.rig.netns_rig import NetnsRig
from tests.rig.sshd import ROOT

_HERE = Path(__file__).parent
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class FrontRig(NetnsRig):
    """Its hosts are Linux; its switches are played by a program of this folder.

    Attributes:
        driver: of the switches. program: the file that plays them. names: the programs that it answers as.
        port: number of a port → what the vendor calls it.
    """

    driver: ClassVar[str]
    program: ClassVar[str]
    names: ClassVar[Sequence[str]]

    @staticmethod
    def port(number: int) -> str:
        """What the vendor calls a port."""
        raise NotImplementedError

    def __init__(self, fabric: NetnsFabric, folder: Path, database: str) -> None:
        if not ROOT:
            pytest.skip(f"{NOT_RUN}needs root: a /run for each switch, where its configuration is")
        super().__init__(fabric, folder, database)
        with Rig(self.lab) as rig:
            for node in fabric.lab.topology.switches:
                connection = rig.drivers[node].connection  # type: ignore[attr-defined]
                connection.read(["sh", "-c", "cat >/run/front.json"], stdin=json.dumps(self.state(node)).encode())

    def state(self, node: str) -> dict[str, Any]:
        """What a switch has before anybody configures it."""
        return {"ports": {name: port for port, name in self.port_names(node).items()}, "config": {}}

    def port_names(self, node: str) -> Mapping[str, str]:
        """Port of the fabric → the vendor's name."""
        return {port.name: self.port(i) for i, port in enumerate(self.fabric.lab.topology.ports(node))}

    def _config(self) -> None:
        super()._config()
        programs = self.folder / "bin"
        programs.mkdir()
        for name in self.names:
            path = programs / name
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -S {_HERE / self.program} {name} "$@"\n')
            path.chmod(0o755)
        with (self.folder / "config").open("a") as file:
            file.write(f"SetEnv PATH={programs}:{_PATH}\n")

    def _described(self, database: str) -> dict[str, object]:
        described: dict[str, Any] = super()._described(database)
        described["rig"]["front_end"] = True
        topology = self.fabric.lab.topology
        for node, about in described["rig"]["nodes"].items():
            if topology.tier(node) is not Tier.HOST:
                about |= {"driver": self.driver, "ports": dict(self.port_names(node))}
        return described


class SonicRig(FrontRig):
    """SONiC: ports are Ethernet0, Ethernet4, …"""

    driver = "sonic"
    program = "sonic.py"
    names = ("sonic-db-cli", "sonic-db-dump", "sonic-cfggen", "config")

    @staticmethod
    def port(number: int) -> str:
        return f"Ethernet{4 * number}"

    def state(self, node: str) -> dict[str, Any]:
        about = {"DEVICE_METADATA|localhost": {"mac": self._one_mac(node), "hwsku": "Test-SKU"}}
        return {**super().state(node), "config": about}

    def _one_mac(self, node: str) -> str:
        """Give all ports of a switch the one address that SONiC has for them, and tell it the hosts below."""
        topology = self.fabric.lab.topology
        mac = f"02:00:00:00:ff:{topology.switches.index(node):02x}"
        for port in topology.ports(node):
            self.fabric.switch(node).run(["ip", "link", "set", "dev", port.name, "address", mac])
            peer = topology.peer(port)
            if topology.tier(peer.node) is Tier.HOST:
                words = [GATEWAY, "lladdr", mac, "dev", peer.name, "nud", "permanent"]
                self.fabric.host(peer.node).run(["ip", "-6", "neigh", "replace", *words])
        return mac


def unanswered(fabric: NetnsFabric, src: str, dst: str) -> list[str]:
    """Probe every path of a pair once, leg by leg, with real packets; the legs that none came back from."""
    plan = fabric.addresses
    flat = [leg for ev in plan.evs(src, dst) for leg in legs(plan, src, dst, ev)]
    replies = Pinging(fabric, src, dst, flat, count=1, interval_s=0.01, timeout_s=5)
    return [f"EV {flat[r.leg].ev:#06x} to {flat[r.leg].to}: {r.error or 'lost'}" for r in replies if r.ns is None]


class EosRig(FrontRig):
    """EOS: ports are Ethernet1, Ethernet2, …"""

    driver = "eos"
    program = "eos.py"
    names = ("FastCli",)

    @staticmethod
    def port(number: int) -> str:
        return f"Ethernet{number + 1}"


class CumulusRig(FrontRig):
    """Cumulus Linux: the switch is Linux, and only nv is played; ports keep the namespace's names."""

    driver = "cumulus"
    program = "nvue.py"
    names = ("nv",)

    def port_names(self, node: str) -> Mapping[str, str]:
        return {port.name: port.name for port in self.fabric.lab.topology.ports(node)}
