"""``testbed check`` at the keyboard: what it tells, puts right, holds on to, and whom it lets have the rig."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from testbed.cli import main
from testbed.leases import Database, Journal, Leases, UnhealthyError
from tests.netns.conftest import TINY, realise
from tests.rig.netns_rig import NetnsRig, made_of

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def _devices() -> Iterator[NetnsRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY) as fabric:
        yield made_of(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")


@pytest.fixture
def devices(_devices: NetnsRig) -> Iterator[NetnsRig]:
    """The devices, which each test leaves as the plan has them."""
    yield _devices
    assert _devices.fabric.check() == []


@pytest.fixture
def leases(devices: NetnsRig) -> Iterator[Leases]:
    assert devices.lab.rig is not None
    with Database(devices.lab.rig.leases) as opened:
        yield Leases(opened)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_good_check_says_so_and_what_nobody_could_tell(devices: NetnsRig, leases: Leases) -> None:
    done = run("check", devices.file)
    assert done.exit_code == 0, done.output
    last = done.output.splitlines()[-1]
    assert last.startswith("ssh-rig: as the lab says (10 devices, packets over 8 of 8 paths")
    told = json.loads(run("check", devices.file, "--json").output)
    assert (told["good"], told["findings"], told["drift"]) == (True, [], [])
    assert leases.list()[0].health == "healthy"
    assert leases.list()[0].lease is None, "given back"


def test_what_is_wrong_is_a_table_and_the_rig_is_not_handed_out_until_it_is_fixed(
    devices: NetnsRig, leases: Leases
) -> None:
    switch = devices.fabric.switch("p0-t0-0")
    switch.run(["ip", "-6", "route", "del", "5f00:0:2001::/48"])
    switch.run(["ip", "-6", "route", "add", "5f00:0:7777::/48", "via", "fe80::1", "dev", "d0", "proto", "static"])
    done = run("check", devices.file)
    assert done.exit_code == 1
    assert "p0-t0-0 t1-1 uSIDs no route 5f00:0:2001::/48 5f00:0:2001::/48 forward t1-1" in squeezed(done.output)
    assert "ip -d -6 route show table main" in squeezed(done.output)
    with pytest.raises(UnhealthyError, match=r"check: p0-t0-0:d0: uSIDs: .*, and 1 more"):
        leases.take([devices.lab.name], ttl_s=1)
    done = run("check", devices.file, "--fix")
    assert done.exit_code == 0, done.output
    assert "fixed: p0-t0-0: uSID table written and read back" in done.output
    assert Journal(leases.database).to_undo() == [], "it is to stay"
    assert devices.fabric.check() == []
    leases.release(leases.take([devices.lab.name], ttl_s=1).id)


def test_a_port_that_is_down_is_set_up_and_its_routes_with_it(devices: NetnsRig) -> None:
    devices.fabric.switch("p1-t1-0").run(["ip", "link", "set", "t0-1", "down"])
    done = run("check", devices.file, "--fix")
    assert done.exit_code == 0, done.output
    assert "fixed: p1-t1-0: t0-1 set up" in done.output


def test_what_an_earlier_run_left_is_healed_first(devices: NetnsRig, leases: Leases) -> None:
    from testbed.fabric.rig.rig import Rig
    from testbed.leases import HeldLease

    journal = Journal(leases.database)
    with HeldLease.take(leases, [devices.lab.name]) as lease, Rig(devices.lab, lease, journal) as rig:
        rig.set_link(devices.lab.topology.link("p0-t0-0~p0-t1-0"), up=False)
    done = run("check", devices.file, "--fix")
    assert done.exit_code == 2
    assert "testbed heal ssh-rig" in done.output
    assert run("heal", "ssh-rig", "--database", leases.database.url).exit_code == 0
    assert run("check", devices.file).exit_code == 0


def test_somebody_elses_rig_is_left_alone_and_ones_own_is_checked(devices: NetnsRig, leases: Leases) -> None:
    other = leases.take([devices.lab.name], ttl_s=60, owner="somebody@elsewhere:1", purpose="their run")
    done = run("check", devices.file)
    leases.release(other.id)
    assert done.exit_code == 4
    assert "somebody@elsewhere:1 holds it, for their run" in done.output
    running = leases.take([devices.lab.name], ttl_s=60)
    assert run("check", devices.file).exit_code == 4, "a run that is alive, though it is this user's"
    leases.release(running.id)
    argv = [sys.executable, "-m", "testbed.cli", "lease", "take", devices.lab.name, "--database", leases.database.url]
    subprocess.run(argv, check=True, timeout=60)
    mine = leases.find(devices.lab.name)
    assert run("check", devices.file).exit_code == 0
    assert leases.find(devices.lab.name).id == mine.id, "still mine"
    leases.release(mine.id)


def test_what_has_changed_since_the_last_good_check_is_told_once(devices: NetnsRig) -> None:
    assert run("check", devices.file).exit_code == 0
    devices.fabric.host("h1").run(["ip", "link", "set", "p0", "mtu", "9100"])
    told = json.loads(run("check", devices.file, "--json").output)
    devices.fabric.host("h1").run(["ip", "link", "set", "p0", "mtu", "9000"])
    assert told["good"]
    assert told["drift"] == [{"device": "h1", "what": "MTU of p0", "was": "9000", "now": "9100"}]
    assert "h1 MTU of p0 9100 9000" in squeezed(run("check", devices.file).output)
    assert json.loads(run("check", devices.file, "--json").output)["drift"] == []


@pytest.mark.parametrize("by", ["name", "file"])
def test_a_rig_of_which_a_device_is_away_is_not_handed_out_until_a_check_finds_it_well(
    devices: NetnsRig, leases: Leases, by: str
) -> None:
    assert run("check", devices.file).exit_code == 0
    wanted = devices.lab.name if by == "name" else devices.file
    hidden = devices.socket("p1-t1-0").rename(devices.folder / "hidden")
    try:
        done = run("lease", "take", wanted, "--database", leases.database.url)
    finally:
        hidden.rename(devices.socket("p1-t1-0"))
    assert done.exit_code == 4
    assert "1 of 10 devices do not answer: p1-t1-0: nobody accepts a connection" in done.output
    assert leases.list()[0].lease is None, "given back"
    assert "is not handed out" in run("lease", "take", wanted, "--database", leases.database.url).output
    assert run("check", devices.file).exit_code == 0
    assert run("lease", "take", wanted, "--database", leases.database.url).exit_code == 0
    assert run("lease", "release", devices.lab.name, "--database", leases.database.url).exit_code == 0


def test_read_only_refuses_what_changes_a_device_before_it_is_journalled(
    devices: NetnsRig, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    from testbed.errors import UsageError
    from testbed.fabric.rig.rig import Rig
    from testbed.leases import HeldLease

    assert run("check", devices.file, "--fix", "--read-only").exit_code == 2
    monkeypatch.setenv("TESTBED_READ_ONLY", "1")
    journal, link = Journal(leases.database), devices.lab.topology.link("p0-t0-0~p0-t1-0")
    with HeldLease.take(leases, [devices.lab.name]) as lease, Rig(devices.lab, lease, journal) as rig:
        with pytest.raises(UsageError, match="only to be read"):
            rig.set_link(link, up=False)
        change = journal.begin(lease, rig.devices["p0-t0-0"], "a write past the rig", {"kind": "reboot"})
        with pytest.raises(UsageError, match="only to be read, and this would change one"):
            rig.drivers["p0-t0-0"].connection.write(["true"], under=change)  # type: ignore[attr-defined]
        change.undone()
    assert journal.to_undo() == []
    assert run("check", devices.file).exit_code == 0, "which changes nothing"


def test_a_lab_without_devices_is_refused() -> None:
    done = run("check", "laptop")
    assert done.exit_code == 2
    assert "this lab names no devices" in done.output


def squeezed(text: str) -> str:
    return " ".join(text.split())
