"""Our own drivers hold to what every driver has to, with devices that are read and changed over real SSH.

The devices of the vendors' drivers are front ends of ours: for these it is a smoke test.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from testbed.addressing import AddressPlan
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.rig.plan import switch_routes
from testbed.fabric.rig.rig import Rig
from testbed.lab.inventory import Device
from testbed.lab.inventory import devices as devices_of
from testbed.lab.rig import Credential
from testbed.pytest_plugin.conformance import *  # noqa: F403
from testbed.pytest_plugin.conformance import Subject
from tests.netns.conftest import TINY, realise
from tests.rig.fronts.rigs import CumulusRig, EosRig, SonicRig
from tests.rig.frr_rig import FrrRig
from tests.rig.netns_rig import NetnsRig, made_of

pytestmark = pytest.mark.timeout(300)
SWITCHES: dict[str, Callable[[NetnsFabric, Path, str], NetnsRig]] = {
    "linux-switch": made_of,
    "frr-switch": FrrRig,
    "sonic": SonicRig,
    "eos": EosRig,
    "cumulus": CumulusRig,
}
_POINTS = {point.name: point for point in entry_points(group="testbed.drivers")}


@contextlib.contextmanager
def _switch(kind: str) -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        rig = SWITCHES[kind](fabric, Path(name), f"sqlite:///{name}/leases.sqlite")
        rig.strip()
        device = devices_of(rig.lab)["p0-t0-0"]
        plan, topology = AddressPlan(rig.lab), rig.lab.topology
        with Rig(rig.lab) as looked_at:
            macs = {
                f"{node}:{port}": state.mac
                for node, made in looked_at.drivers.items()
                for port, state in made.ports().items()  # type: ignore[attr-defined]
            }
        peers = {device.device_port(p.name): macs[str(topology.peer(p))] for p in topology.ports(device.node)}
        yield Subject(
            make=_POINTS[kind].load(),
            device=device,
            reachable=True,
            changeable=True,
            port="t1-0",
            block=str(plan.block),
            routes=switch_routes(rig.lab, plan, device),
            peers=peers,
        )


@pytest.fixture(scope="module", params=[*SWITCHES, *sorted(_POINTS.keys() - SWITCHES.keys())])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Each driver that is installed; those without a device here are only asked what they say of themselves."""
    if request.param in SWITCHES:
        with _switch(request.param) as made:
            yield made
    else:
        yield Subject(make=_POINTS[request.param].load(), device=_nowhere(request.param))


def _nowhere(driver: str) -> Device:
    return Device(
        rig="test",
        node="d0",
        driver=driver,
        address="192.0.2.1",
        port=22,
        credential=Credential(user="nobody", agent=True),
        ports={"p0": "eth0"},
    )
