"""A fabric of switches that answer as EOS, over real SSH; what came of it is judged by packets and by the kernel.

A smoke test: the switches are front ends of ours, see tests/rig/fronts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed_drivers.eos import Eos

from testbed.errors import InfrastructureError, UnsupportedError, UsageError
from testbed.fabric.abilities import Reboot, require
from testbed.fabric.rig.rig import LeasedChanges, Rig
from testbed.leases import Database, HeldLease, Journal, Leases
from tests.netns.conftest import TINY, realise
from tests.rig.fronts.rigs import EosRig, unanswered

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def devices() -> Iterator[EosRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        rig = EosRig(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")
        rig.strip()
        yield rig


@pytest.fixture
def journal(devices: EosRig) -> Iterator[tuple[Journal, HeldLease]]:
    assert devices.lab.rig is not None
    with (
        Database(devices.lab.rig.leases) as database,
        HeldLease.take(Leases(database), [devices.lab.name], heartbeat_s=10) as lease,
    ):
        yield Journal(database), lease


@pytest.fixture
def rig(devices: EosRig, journal: tuple[Journal, HeldLease]) -> Iterator[Rig]:
    with Rig(devices.lab, journal[1], journal[0]) as opened:
        yield opened
        opened.put_back()


def switch(rig: Rig, node: str = "p0-t0-0") -> Eos:
    made = rig.drivers[node]
    assert isinstance(made, Eos)
    return made


def test_a_fabric_is_provisioned_carries_every_path_and_is_put_back_bare(devices: EosRig, rig: Rig) -> None:
    assert unanswered(devices.fabric, "h0", "h1"), "without tables nothing is carried"
    rig.provision()
    assert rig.check() == []
    assert unanswered(devices.fabric, "h0", "h1") == []
    rig.put_back()
    for node in devices.lab.topology.switches:
        assert devices.fabric.switch(node).run(["ip", "-6", "route", "show", "proto", "static"]).stdout == ""


def test_another_domain_of_the_block_is_replaced_and_put_back(rig: Rig, journal: tuple[Journal, HeldLease]) -> None:
    made, changes = switch(rig), LeasedChanges(*journal)
    change = changes.begin(made.device, "by hand", {"kind": "facts", "block": "5f00::/32", "facts": []})
    made._configure(["router srv6", "vrf default", "micro-segment domain HAND", "block 5f00::/32"], change)
    before = made._facts()
    rig.provision()
    assert rig.check() == []
    last = journal[0].to_undo()[0]
    while last.what != "by hand":
        undone = journal[0].take_over(last, journal[1])
        rig.drivers[last.node].undo(last.inverse, undone)
        undone.undone()
        last = journal[0].to_undo()[0]
    assert made._facts() == before


def test_ports_go_down_and_come_back_with_their_routes(devices: EosRig, rig: Rig) -> None:
    rig.provision()
    rig.set_link(devices.lab.topology.link("p0-t0-0~p0-t1-0"), up=False)
    assert not switch(rig, "p0-t1-0").ports()["t0-0"].up
    rig.put_back()
    rig.provision()
    assert unanswered(devices.fabric, "h0", "h1") == []


def test_of_lines_that_are_not_all_taken_none_is(rig: Rig, journal: tuple[Journal, HeldLease]) -> None:
    made, changes = switch(rig), LeasedChanges(*journal)
    change = changes.begin(made.device, "odd", {"kind": "facts", "block": "5f00::/32", "facts": []})
    before = made._facts()
    lines = ["ipv6 route 5f00:0:7777::/48 Null0", "ipv6 rout nonsense"]
    with pytest.raises(
        InfrastructureError, match=r"p0-t0-0: ipv6 route(?s:.*)none of it(?s:.*)% Invalid input|none of it"
    ):
        made._configure(lines, change)
    assert made._facts() == before
    for inverse in ({"kind": "magic"}, {"kind": "facts", "block": "5f00::/32", "facts": [["username x"]]}):
        with pytest.raises(UsageError, match="not one of this driver's"):
            made.undo(inverse, change)


def test_what_has_no_source_is_refused_by_name(rig: Rig) -> None:
    with pytest.raises(UnsupportedError, match=r"p0-t0-0: driver eos has no 'reboot'(?s:.*)no published source"):
        require(switch(rig), Reboot)
