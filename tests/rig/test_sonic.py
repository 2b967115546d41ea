"""A fabric of switches that answer as SONiC, over real SSH; what came of it is judged by packets and by the kernel.

A smoke test: the switches are front ends of ours, see tests/rig/fronts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_drivers.sonic import Sonic
from testbed_drivers.ssh import CommandFailedError

from testbed.errors import InfrastructureError, UsageError
from testbed.fabric.abilities import Trimming, Wred
from testbed.fabric.rig.rig import LeasedChanges, Rig
from testbed.leases import Database, HeldLease, Journal, Leases
from tests.netns.conftest import TINY, realise
from tests.rig.fronts.rigs import SonicRig, unanswered

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def devices() -> Iterator[SonicRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        rig = SonicRig(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")
        rig.strip()
        yield rig


@pytest.fixture
def journal(devices: SonicRig) -> Iterator[tuple[Journal, HeldLease]]:
    assert devices.lab.rig is not None
    with (
        Database(devices.lab.rig.leases) as database,
        HeldLease.take(Leases(database), [devices.lab.name], heartbeat_s=10) as lease,
    ):
        yield Journal(database), lease


@pytest.fixture
def rig(devices: SonicRig, journal: tuple[Journal, HeldLease]) -> Iterator[Rig]:
    with Rig(devices.lab, journal[1], journal[0]) as opened:
        yield opened
        opened.put_back()


@pytest.fixture
def changes(journal: tuple[Journal, HeldLease]) -> LeasedChanges:
    return LeasedChanges(*journal)


def switch(rig: Rig) -> Sonic:
    made = rig.drivers["p0-t0-0"]
    assert isinstance(made, Sonic)
    return made


def test_a_fabric_is_provisioned_carries_every_path_and_is_put_back_bare(devices: SonicRig, rig: Rig) -> None:
    before = unanswered(devices.fabric, "h0", "h1")
    assert before, "without tables nothing is carried"
    rig.provision()
    assert rig.check() == []
    assert unanswered(devices.fabric, "h0", "h1") == []
    rig.put_back()
    assert len(unanswered(devices.fabric, "h0", "h1")) == len(before)
    for node in devices.lab.topology.switches:
        assert devices.fabric.switch(node).run(["ip", "-6", "route", "show", "proto", "static"]).stdout == ""


def test_a_wrong_route_of_somebodys_is_put_right_and_put_back_wrong(rig: Rig, changes: LeasedChanges) -> None:
    rig.provision()
    made = switch(rig)
    key, wrong = "STATIC_ROUTE|default|5f00:0:2001::/48", {"nexthop": "fe80::1", "ifname": "Ethernet0"}
    spoilt = made._change("spoil", {key: wrong}, made._db.dump("CONFIG_DB", key), changes)
    assert spoilt is not None
    assert any("5f00:0:2001::/48" in line for line in rig.check())
    rig.provision()
    assert rig.check() == []
    made.undo({"kind": "keys", "before": {key: wrong}}, spoilt)
    assert made._db.dump("CONFIG_DB", key) == {key: wrong}


def test_a_sid_that_does_nothing_is_not_taken_for_one(rig: Rig, changes: LeasedChanges) -> None:
    rig.provision()
    made = switch(rig)
    key = next(iter(made._db.dump("CONFIG_DB", "SRV6_MY_LOCATORS|*")))
    made._change("take the locator away", {key: None}, made._db.dump("CONFIG_DB", key), changes)
    assert any("missing route" in line and line.endswith(" un") for line in rig.check())


def test_a_table_that_never_comes_into_effect_is_told_and_is_in_the_journal(
    rig: Rig, changes: LeasedChanges, journal: tuple[Journal, HeldLease]
) -> None:
    made = switch(rig)
    made.settles_s = 0.5
    routes = list(made.usid_routes("5f00::/32"))
    assert routes == []
    from testbed.fabric.devices import Does, UsidRoute

    # The front end's kernel refuses a gateway of a port that is down.
    made.set_port("t1-0", up=False, changes=changes)
    route = UsidRoute("5f00:0:2000::/48", Does.FORWARD, made.device.device_port("t1-0"))
    with pytest.raises(InfrastructureError, match=r"read back(?s:.*)no 5f00:0:2000::/48 forward"):
        made.install("5f00::/32", [route], {}, changes)
    assert [entry.what for entry in journal[0].to_undo()] == ["uSID table of 1 routes", "t1-0 down"]


def test_ports_go_down_and_come_back(devices: SonicRig, rig: Rig) -> None:
    rig.provision()
    rig.set_link(devices.lab.topology.link("p0-t0-0~p0-t1-0"), up=False)
    made = rig.drivers["p0-t1-0"]
    assert isinstance(made, Sonic)
    assert not made.ports()["t0-0"].up
    assert devices.fabric.switch("p0-t1-0").run(["ip", "-o", "link", "show", "t0-0"]).stdout.count("state DOWN") == 1


def test_counters_are_the_kernels_by_common_names(devices: SonicRig, rig: Rig) -> None:
    told = rig.port_counters("p0-t0-0")
    own = devices.fabric.switch("p0-t0-0").port_counters()
    for port, counters in told.items():
        assert set(counters) == {f"{w}_{n}" for w in ("rx", "tx") for n in ("bytes", "packets", "dropped", "errors")}
        assert counters["rx_errors"] == own[port]["rx_errors"]
        assert 0 < counters["rx_bytes"] <= devices.fabric.switch("p0-t0-0").port_counters()[port]["rx_bytes"]


def test_trimming_and_wred_are_set_read_back_and_undone(rig: Rig, changes: LeasedChanges) -> None:
    made = switch(rig)
    assert made.trimming() is None
    made.set_trimming(Trimming(256, 48, 6), changes)
    made.set_wred("mrc", Wred(100_000, 200_000, 0.05, True), changes)
    assert made.set_wred("mrc", Wred(100_000, 200_000, 0.05, True), changes) is None, "it is so already"
    rig.put_back()
    assert (made.trimming(), made.wred()) == (None, {})


def test_what_the_switch_refuses_is_told_with_device_command_and_output(rig: Rig, changes: LeasedChanges) -> None:
    made = switch(rig)
    change = changes.begin(made.device, "odd", {"kind": "keys", "before": {}})
    with pytest.raises(
        CommandFailedError, match=r"p0-t0-0: config interface shutdown Ethernet99(?s:.*)name is invalid"
    ):
        made._set_port("Ethernet99", up=False, under=change)
    for inverse, said in (
        ({"kind": "keys", "before": {"PORT|Ethernet0": None}}, "not one of this driver's"),
        ({"kind": "port", "port": "eth0", "up": False}, "not in the cable map"),
        ({"kind": "magic"}, "not one of this driver's"),
    ):
        with pytest.raises(UsageError, match=said):
            made.undo(inverse, change)
