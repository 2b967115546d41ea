"""A switch that answers nv as Cumulus Linux does, over real SSH: a smoke test, see tests/rig/fronts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_drivers.cumulus import Cumulus
from testbed_drivers.ssh import CommandFailedError

from testbed.errors import InfrastructureError, UnsupportedError
from testbed.fabric.abilities import require
from testbed.fabric.devices import UsidRoutes
from testbed.fabric.rig.rig import LeasedChanges, Rig
from testbed.leases import Database, HeldLease, Journal, Leases
from tests.netns.conftest import TINY, realise
from tests.rig.fronts.rigs import CumulusRig
from tests.rig.sshd import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def devices() -> Iterator[CumulusRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        yield CumulusRig(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")


@pytest.fixture
def journal(devices: CumulusRig) -> Iterator[tuple[Journal, HeldLease]]:
    assert devices.lab.rig is not None
    with (
        Database(devices.lab.rig.leases) as database,
        HeldLease.take(Leases(database), [devices.lab.name], heartbeat_s=10) as lease,
    ):
        yield Journal(database), lease


@pytest.fixture
def rig(devices: CumulusRig, journal: tuple[Journal, HeldLease]) -> Iterator[Rig]:
    with Rig(devices.lab, journal[1], journal[0]) as opened:
        yield opened
        opened.put_back()


def switch(rig: Rig) -> Cumulus:
    made = rig.drivers["p0-t0-0"]
    assert isinstance(made, Cumulus)
    return made


def test_a_port_goes_down_by_nvue_and_comes_back(devices: CumulusRig, rig: Rig) -> None:
    link = devices.lab.topology.link("h0:p0~p0-t0-0")
    rig.set_link(link, up=False)
    assert not switch(rig).ports()["d0"].up
    rig.put_back()
    until(lambda: switch(rig).ports()["d0"].carrier, "carrier is back")


def test_what_somebody_has_pending_is_not_applied(rig: Rig, journal: tuple[Journal, HeldLease]) -> None:
    made, changes = switch(rig), LeasedChanges(*journal)
    made.connection.read(["nv", "set", "interface", "t1-1", "link", "state", "down"])
    with pytest.raises(InfrastructureError, match=r"changes of somebody's are pending(?s:.*)t1-1"):
        made.set_port("d0", up=False, changes=changes)
    assert journal[0].to_undo() == []
    made.connection.read(["nv", "config", "detach"])
    assert made.ports()["t1-1"].up


def test_what_is_not_applied_is_not_left_pending(rig: Rig, journal: tuple[Journal, HeldLease]) -> None:
    made, changes = switch(rig), LeasedChanges(*journal)
    made._names["swp99"] = "x"
    change = changes.begin(made.device, "odd", {"kind": "nvue-port", "port": "d0", "up": True})
    with pytest.raises(CommandFailedError, match=r"p0-t0-0: nv config apply -y(?s:.*)swp99 does not exist"):
        made._apply("swp99", up=False, under=change)
    assert made.connection.read(["nv", "config", "diff"]).stdout == ""


def test_usids_are_refused_with_the_reason(rig: Rig) -> None:
    with pytest.raises(UnsupportedError, match=r"driver cumulus has no 'usids'(?s:.*)no published NVUE command"):
        require(switch(rig), UsidRoutes)
    with pytest.raises(UnsupportedError, match="cannot be given uSID tables"):
        rig.provision()
