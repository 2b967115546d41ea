"""A rig of Linux devices over real SSH: provisioned, read back, changed, put back, healed by another process.

The devices are namespaces, so what was really done to them is judged by the fabric's plan, not by the driver's word.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError, LabError, UnhealedError, UsageError
from testbed.fabric.rig.healing import heal
from testbed.fabric.rig.rig import Rig
from testbed.leases import Database, HeldLease, Journal, Leases, UnhealthyError
from tests.netns.conftest import TINY, realise
from tests.rig.netns_rig import NetnsRig, made_of
from tests.rig.sshd import until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def _devices() -> Iterator[NetnsRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        yield made_of(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")


@pytest.fixture
def devices(_devices: NetnsRig, database: Database) -> Iterator[NetnsRig]:
    """The devices, which each test leaves as the plan has them and with nothing in the journal."""
    yield _devices
    left = _devices.fabric.check()
    assert left == []
    assert Journal(database).to_undo() == []


@pytest.fixture
def database(_devices: NetnsRig) -> Iterator[Database]:
    assert _devices.lab.rig is not None
    with Database(_devices.lab.rig.leases) as opened:
        yield opened


@pytest.fixture
def lease(devices: NetnsRig, database: Database) -> Iterator[HeldLease]:
    with HeldLease.take(Leases(database), [devices.lab.name], heartbeat_s=10) as held:
        yield held


@pytest.fixture
def rig(devices: NetnsRig, database: Database, lease: HeldLease) -> Iterator[Rig]:
    with Rig(devices.lab, lease, Journal(database)) as opened:
        yield opened


def test_a_healthy_rig_has_nothing_wrong_and_one_connection_a_device(devices: NetnsRig) -> None:
    before = {node: devices.log(node).count("Accepted publickey") for node in devices.lab.topology.nodes}
    with Rig(devices.lab) as rig:
        assert rig.check() == []
        assert rig.unreachable() == {}
    for node, count in before.items():
        assert devices.log(node).count("Accepted publickey") == count + 1


def test_what_is_wrong_is_told_by_device_and_port(devices: NetnsRig) -> None:
    switch, host = devices.fabric.switch("p0-t0-0"), devices.fabric.host("h0")
    switch.run(["ip", "-6", "route", "del", "5f00:0:2001::/48"])
    switch.run(["ip", "-6", "route", "add", "5f00:0:7777::/48", "via", "fe80::1", "dev", "d0", "proto", "static"])
    host.run(["ip", "link", "set", "p1", "mtu", "8000"])
    try:
        with Rig(devices.lab) as rig:
            assert rig.check() == [
                "h0: p1 (p1) has MTU 8000, and the lab 9000",
                "p0-t0-0: missing route 5f00:0:2001::/48 forward t1-1",
                "p0-t0-0: unexpected route 5f00:0:7777::/48 forward d0",
            ]
    finally:
        switch.run(["ip", "-6", "route", "add", "5f00:0:2001::/48", "via", "fe80::1", "dev", "t1-1", "proto", "static"])
        switch.run(["ip", "-6", "route", "del", "5f00:0:7777::/48"])
        host.run(["ip", "link", "set", "p1", "mtu", "9000"])


def test_bare_switches_are_given_the_very_tables_of_the_plan_and_put_back_bare(
    devices: NetnsRig, rig: Rig, database: Database
) -> None:
    devices.strip()
    assert len([line for line in rig.check() if "missing route" in line]) == 4 * 5 + 4 * 4
    rig.provision()
    assert rig.check() == []
    assert devices.fabric.check() == [], "as the namespaces' own builder makes them"
    entries = Journal(database).to_undo()
    assert {entry.state for entry in entries} == {"made"}
    rig.provision()
    assert len(Journal(database).to_undo()) == len(entries), "nothing is written that is there already"
    rig.put_back()
    assert Journal(database).to_undo() == []
    for switch in devices.lab.topology.switches:
        table = devices.fabric.switch(switch).run(["ip", "-6", "route", "show", "proto", "static"]).stdout
        neighbours = devices.fabric.switch(switch).run(["ip", "-6", "neigh", "show", "nud", "permanent"]).stdout
        assert (table, neighbours) == ("", "")
    rig.provision()
    for entry in Journal(database).to_undo():  # The next test wants them as they are now.
        Journal(database).note(entry.id, "undone")


def test_wrong_routes_are_put_right_and_put_back_wrong(devices: NetnsRig, rig: Rig) -> None:
    switch = devices.fabric.switch("p1-t0-1")
    wrong = ["5f00:0:2200::/48", "via", "fe80::1", "dev", "t1-1", "proto", "static"]
    right = ["5f00:0:2200::/48", "via", "fe80::1", "dev", "t1-0", "proto", "static"]
    more = ["5f00:0:7777::/48", "encap", "seg6local", "action", "End", "dev", "sid0", "proto", "static"]
    switch.run(["ip", "-6", "route", "replace", *wrong])
    switch.run(["ip", "-6", "route", "add", *more])
    before = switch.run(["ip", "-6", "-d", "route", "show"]).stdout
    rig.provision()
    assert rig.check() == devices.fabric.check() == []
    rig.put_back()
    assert switch.run(["ip", "-6", "-d", "route", "show"]).stdout == before
    switch.run(["ip", "-6", "route", "replace", *right])
    switch.run(["ip", "-6", "route", "del", more[0]])


@pytest.mark.parametrize("name", ["h0:p0~p0-t0-0", "p1-t0-0~p1-t1-1"])
def test_a_link_goes_down_and_comes_back_with_all_that_hung_on_it(devices: NetnsRig, rig: Rig, name: str) -> None:
    link = devices.lab.topology.link(name)
    rig.set_link(link, up=False)
    with Rig(devices.lab) as looked_at:
        told = looked_at.check()
    assert f"{link.a.node}: {link.a.name} ({link.a.name}) has no carrier" in told
    assert f"{link.b.node}: {link.b.name} ({link.b.name}) is set down" in told
    rig.put_back()
    until(lambda: devices.fabric.check() == [], "the link is back")


def test_counters_of_a_device_are_the_kernels_own(devices: NetnsRig) -> None:
    with Rig(devices.lab) as rig:
        told = rig.port_counters("p0-t0-0")
    own = devices.fabric.switch("p0-t0-0").port_counters()
    assert told.keys() == {"d0", "t1-0", "t1-1"}
    for port, counters in told.items():
        common = counters.keys() & own[port].keys()
        assert {"rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped", "rx_errors"} <= common
        assert {name: counters[name] for name in common} == {name: own[port][name] for name in common}


def test_without_a_lease_devices_are_only_read(devices: NetnsRig) -> None:
    with Rig(devices.lab) as rig, pytest.raises(UsageError, match="changed under a lease"):
        rig.provision()


def test_a_driver_that_is_not_there_has_a_nearest(devices: NetnsRig) -> None:
    text = devices.file.read_text().replace('"linux-switch"', '"linux-swich"')
    with pytest.raises(LabError, match=r"(?s)no driver 'linux-swich'.*nearest: +linux-switch"):
        Rig(type(devices.lab).parse(text))


def test_a_device_that_is_away_is_named_and_the_others_are_told(devices: NetnsRig) -> None:
    text = devices.file.read_text().replace("p1-t1-0.sock", "elsewhere.sock")
    known = devices.folder / "known_hosts"
    known.write_text(known.read_text() + known.read_text().replace("p1-t1-0.sock", "elsewhere.sock"))
    with Rig(type(devices.lab).parse(text)) as rig:
        assert list(rig.unreachable()) == ["p1-t1-0"]
        (line,) = rig.check()
    assert line.startswith("p1-t1-0: nobody accepts a connection")


# -- what a dead run left ----------------------------------------------------------------------------------------------

DIES = """
import os, signal, sys
from testbed.fabric.rig.rig import Rig
from testbed.lab import Lab
from testbed.leases import Database, HeldLease, Journal, Leases
lab = Lab.load(sys.argv[1])
database = Database(lab.rig.leases)
lease = HeldLease.take(Leases(database), [lab.name], heartbeat_s=float(sys.argv[2]))
rig = Rig(lab, lease, Journal(database))
rig.set_link(lab.topology.link("p0-t0-0~p0-t1-0"), up=False)
rig.set_link(lab.topology.link("h1:p1~p1-t0-1"), up=False)
os.kill(os.getpid(), signal.SIGKILL)
"""


def die(devices: NetnsRig) -> None:
    """A run changes two devices and is killed."""
    argv = [sys.executable, "-c", DIES, str(devices.file), "2"]
    assert subprocess.run(argv, cwd=ROOT, timeout=60).returncode == -signal.SIGKILL
    assert devices.fabric.check() != []


def test_what_a_killed_run_left_is_undone_by_another_process_and_the_rig_is_free(
    devices: NetnsRig, database: Database
) -> None:
    die(devices)
    leases = Leases(database)
    (first,) = heal(database)
    if first.busy:  # It has not expired yet: whoever holds a rig is not disturbed.
        until(lambda: leases.list()[0].left_s == 0, "it expires")
    with pytest.raises(UnhealthyError, match="before it is healed"):
        leases.take([devices.lab.name], ttl_s=1)
    argv = [sys.executable, "-m", "testbed.cli", "heal", "--database", database.url]
    done = subprocess.run(argv, cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ssh-rig: healed, 2 changes undone\n"), done.stderr
    until(lambda: devices.fabric.check() == [], "carrier is back")
    leases.release(leases.take([devices.lab.name], ttl_s=1).id)


def test_a_rig_that_cannot_be_healed_is_unhealthy_until_it_is(
    devices: NetnsRig, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(devices)
    leases = Leases(database)
    until(lambda: leases.list()[0].left_s == 0, "it expires")
    hidden = devices.socket("p1-t0-1").rename(devices.folder / "hidden")
    try:
        (outcome,) = heal(database)
    finally:
        hidden.rename(devices.socket("p1-t0-1"))
    assert not outcome.healed
    assert outcome.undone == 1, "the other device is put back all the same"
    assert "p1-t0-1: d0 down: nobody accepts a connection" in outcome.remains[0]
    with pytest.raises(UnhealthyError, match=r"(?s)not handed out.*not healed: p1-t0-1"):
        leases.take([devices.lab.name], ttl_s=1)
    (outcome,) = heal(database)
    assert outcome.lines() == ["ssh-rig: healed, 1 changes undone"]
    until(lambda: devices.fabric.check() == [], "carrier is back")
    leases.release(leases.take([devices.lab.name], ttl_s=1).id)


def test_a_reaper_heals_as_soon_as_the_lease_of_a_dead_run_is_over(devices: NetnsRig, database: Database) -> None:
    argv = [sys.executable, "-m", "testbed.cli", "heal", "--database", database.url, "--watch", "200ms"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as reaper:
        try:
            die(devices)
            assert reaper.stdout is not None
            line = next((line for line in reaper.stdout if "left alone" not in line), "")
            assert line == "ssh-rig: healed, 2 changes undone\n"
        finally:
            reaper.terminate()
    until(lambda: devices.fabric.check() == [], "carrier is back")


def test_a_change_that_was_journalled_and_never_made_is_undone_by_doing_nothing(
    devices: NetnsRig, database: Database, lease: HeldLease
) -> None:
    device = Rig(devices.lab).devices["p0-t0-0"]
    journal = Journal(database)
    for inverse in (
        {"kind": "table", "steps": [{"kind": "interface", "name": "nosuch1"}]},
        {"kind": "route", "prefix": "5f00:0:7777::/48", "before": None},
        {"kind": "neighbour", "address": "fe80::9", "port": "d0", "before": None},
        {"kind": "interface", "name": "nosuch0"},
        {"kind": "port", "port": "d0", "up": True, "routes": [], "neighbours": []},
    ):
        journal.begin(lease, device, "never made", inverse)
    with Rig(devices.lab, lease, journal) as rig:
        rig.put_back()


def test_an_entry_that_no_driver_understands_touches_nothing_and_is_told(
    devices: NetnsRig, database: Database, lease: HeldLease
) -> None:
    device, journal = Rig(devices.lab).devices["p0-t0-0"], Journal(database)
    foreign = {"kind": "port", "port": "eth0", "up": False, "routes": [], "neighbours": []}
    others: dict[str, object] = {"kind": "folder", "path": "/var/tmp/mrc-testbed-x/../other"}
    for inverse, said in (
        ({"kind": "magic"}, "not one of this driver's"),
        (foreign, "not in the cable map"),
        (others, "no folder of the testbed's"),
    ):
        change = journal.begin(lease, device, "odd", inverse)
        with Rig(devices.lab, lease, journal) as rig, pytest.raises(UnhealedError, match=said):
            rig.put_back()
        change.undone()


def test_a_lost_lease_stops_the_run_before_anything_is_sent(
    devices: NetnsRig, database: Database, lease: HeldLease, rig: Rig
) -> None:
    rig.check()
    Leases(database).release(lease.facts.id)
    link = devices.lab.topology.link("p0-t0-0~p0-t1-0")
    sessions = devices.log("p0-t1-0").count("Starting session")
    with pytest.raises(InfrastructureError, match="lease is lost"):
        rig.set_link(link, up=False)
    # It had read the port's state and what hangs on it, and then was refused; from then on nothing is read either.
    assert devices.log("p0-t1-0").count("Starting session") <= sessions + 4
    assert devices.fabric.check() == []
