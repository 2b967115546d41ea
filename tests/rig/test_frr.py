"""A fabric of switches whose routes real FRR keeps: zebra and staticd in every switch's namespace, over real SSH."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_drivers.frr import FrrSwitch

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.rig.rig import LeasedChanges, Rig
from testbed.leases import Database, HeldLease, Journal, Leases
from tests.netns.conftest import TINY, realise
from tests.rig.fronts.rigs import unanswered
from tests.rig.frr_rig import FrrRig
from tests.rig.sshd import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def devices() -> Iterator[FrrRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        rig = FrrRig(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")
        rig.strip()
        yield rig


@pytest.fixture
def journal(devices: FrrRig) -> Iterator[tuple[Journal, HeldLease]]:
    assert devices.lab.rig is not None
    with (
        Database(devices.lab.rig.leases) as database,
        HeldLease.take(Leases(database), [devices.lab.name], heartbeat_s=10) as lease,
    ):
        yield Journal(database), lease


@pytest.fixture
def rig(devices: FrrRig, journal: tuple[Journal, HeldLease]) -> Iterator[Rig]:
    with Rig(devices.lab, journal[1], journal[0]) as opened:
        yield opened
        opened.put_back()


def switch(rig: Rig, node: str = "p0-t0-0") -> FrrSwitch:
    made = rig.drivers[node]
    assert isinstance(made, FrrSwitch)
    return made


def test_a_fabric_is_provisioned_carries_every_path_and_is_put_back_bare(devices: FrrRig, rig: Rig) -> None:
    assert unanswered(devices.fabric, "h0", "h1"), "without tables nothing is carried"
    rig.provision()
    assert rig.check() == []
    assert unanswered(devices.fabric, "h0", "h1") == []
    assert len(switch(rig)._lines()) == 4, "a drop, two T1s, and a host"
    rig.put_back()
    until(lambda: switch(rig).usid_routes("5f00::/32") == [], "zebra has taken the routes away")
    assert switch(rig)._lines() == []


def test_nothing_is_written_that_is_there_already(rig: Rig, journal: tuple[Journal, HeldLease]) -> None:
    rig.provision()
    entries = len(journal[0].to_undo())
    rig.provision()
    assert len(journal[0].to_undo()) == entries


def test_a_wrong_route_of_frrs_is_put_right_and_put_back_wrong(rig: Rig, journal: tuple[Journal, HeldLease]) -> None:
    rig.provision()
    made, changes = switch(rig), LeasedChanges(*journal)
    right = next(line for line in made._lines() if "5f00:0:2001::/48" in line)
    wrong = next(line for line in made._lines() if "5f00:0:2000::/48" in line).replace("2000::/48", "2001::/48")
    change = changes.begin(made.device, "spoil", {"kind": "frr", "lines": [f"no {wrong}", right]})
    made._configure([f"no {right}", wrong], change)
    until(lambda: any("5f00:0:2001::/48" in line for line in rig.check()), "the wrong route is in the kernel")
    rig.provision()
    assert rig.check() == []
    assert right in made._lines()
    assert wrong not in made._lines()


def test_a_port_comes_back_with_its_routes(devices: FrrRig, rig: Rig, journal: tuple[Journal, HeldLease]) -> None:
    rig.provision()
    rig.set_link(devices.lab.topology.link("p0-t0-0~p0-t1-0"), up=False)
    assert any("p0-t1-0: missing route" in line for line in rig.check())
    down = journal[0].to_undo()[0]
    change = journal[0].take_over(down, journal[1])
    switch(rig, down.node).undo(down.inverse, change)
    change.undone()
    until(lambda: rig.check() == [], "the link is back, and zebra has its routes back")
    assert unanswered(devices.fabric, "h0", "h1") == []


def test_what_vtysh_complains_about_is_told_with_device_command_and_output(
    rig: Rig, journal: tuple[Journal, HeldLease]
) -> None:
    made, changes = switch(rig), LeasedChanges(*journal)
    change = changes.begin(made.device, "odd", {"kind": "frr", "lines": []})
    with pytest.raises(
        InfrastructureError, match=r"p0-t0-0: vtysh -c configure terminal -c ipv6 rout nonsense(?s:.*)%"
    ):
        made._configure(["ipv6 rout nonsense"], change)
    with pytest.raises(UsageError, match="not one of this driver's"):
        made.undo({"kind": "frr", "lines": ["no router bgp 1"]}, change)


def test_its_version_names_frr(rig: Rig) -> None:
    assert "FRRouting" in switch(rig).version()
