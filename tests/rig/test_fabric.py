"""A rig as a fabric: leased, provisioned, worked on, put back and given back; judged by its namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError, LabError, UnsupportedError, UsageError
from testbed.fabric.protocols import Ready
from testbed.fabric.rig.fabric import RigFabric, bring_up
from testbed.leases import BusyError, Database, Journal, Leases, UnhealthyError
from tests.netns.conftest import QUICK_REBOOT, TINY, realise
from tests.rig.netns_rig import NetnsRig, made_of
from tests.rig.sshd import until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def devices() -> Iterator[NetnsRig]:
    with tempfile.TemporaryDirectory(prefix="testbed-rig-") as name, realise(TINY + QUICK_REBOOT) as fabric:
        yield made_of(fabric, Path(name), f"sqlite:///{name}/leases.sqlite")


@pytest.fixture
def database(devices: NetnsRig) -> Iterator[Database]:
    assert devices.lab.rig is not None
    with Database(devices.lab.rig.leases) as opened:
        yield opened


@pytest.fixture
def rig(devices: NetnsRig, database: Database) -> Iterator[RigFabric]:
    """The rig, brought up; it has to be as it was before, and free, when the test is over."""
    with bring_up(devices.lab) as fabric:
        yield fabric
    assert devices.fabric.check() == []
    assert Journal(database).to_undo() == []
    assert Leases(database).list()[0].lease is None


def test_a_rig_that_nobody_has_set_up_is_provisioned_and_put_back_bare(devices: NetnsRig, database: Database) -> None:
    devices.strip()
    host = devices.fabric.host("h1")
    for port in ("p0", "p1"):
        host.run(["ip", "-6", "address", "flush", "dev", port, "scope", "global"])
        host.run(["ip", "-6", "route", "del", "5f00:0:1001::/48" if port == "p0" else "5f00:0:1201::/48"])
        host.run(["ip", "-6", "neigh", "flush", "nud", "permanent", "dev", port])
    before = host.run(["ip", "-6", "address", "show"]).stdout, host.run(["ip", "-6", "route", "show"]).stdout
    with bring_up(devices.lab) as fabric:
        assert fabric.check() == []
        assert devices.fabric.check() == [], "as the namespaces' own builder makes them"
    assert (host.run(["ip", "-6", "address", "show"]).stdout, host.run(["ip", "-6", "route", "show"]).stdout) == before
    assert len([line for line in devices.fabric.check() if "missing" in line or "no " in line]) > 40
    with bring_up(devices.lab):  # The next test wants the plan's tables.
        for entry in Journal(database).to_undo():
            Journal(database).note(entry.id, "undone")


def test_commands_run_on_the_device_with_its_own_exit_code_output_and_environment(rig: RigFabric) -> None:
    done = rig.host("h0").run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    links = rig.switch("p0-t1-0").run(["ip", "-br", "link"]).stdout
    assert "t0-0" in links
    assert "t0-1" in links
    told = rig.host("h1").run(["sh", "-c", "echo $TESTBED_NODE $TESTBED_FABRIC $MORE"], env={"MORE": "a 'b'"}).stdout
    assert told == "h1 ssh-rig a 'b'\n"
    with pytest.raises(InfrastructureError, match=r"(?s)h0.*sh -c.*exit code 3.*err"):
        rig.host("h0").run(["sh", "-c", "echo err >&2; exit 3"])
    with pytest.raises(InfrastructureError, match=r"nosuch cannot be started(?s:.*)No such file"):
        rig.host("h0").run(["nosuch"])
    assert rig.host("h0").run(["sh", "-c", "kill -9 $$"], check=False).returncode == -signal.SIGKILL
    assert len(rig.host("h0").run(["head", "-c", "3000000", "/dev/zero"]).stdout) == 3_000_000


def test_a_command_that_does_not_end_is_ended_on_the_device(devices: NetnsRig, rig: RigFabric) -> None:
    with pytest.raises(InfrastructureError, match=r"did not end within 0\.5 s"):
        rig.host("h0").run(["sh", "-c", "sleep 9173 & wait"], timeout_s=0.5)
    until(lambda: devices.processes("h0", "sleep 9173") == [], "it is gone there")


@pytest.mark.parametrize(
    ("ready", "program"),
    [
        (Ready(line="^it is up"), "print('it is up', flush=True)"),
        (Ready(fd=True), "os.write(int(os.environ['READY_FD']), b'ready\\n')"),
        (Ready(port=4711), "s = socket.create_server(('::1', 4711), family=socket.AF_INET6)"),
    ],
)
def test_a_process_is_waited_for_until_it_is_ready_and_restarted(rig: RigFabric, ready: Ready, program: str) -> None:
    text = f"import os, socket, time; time.sleep(0.3); {program}; print('on', flush=True); time.sleep(1000)"
    began = time.monotonic()
    process = rig.host("h0").popen(["python3", "-c", text], ready=ready)
    assert time.monotonic() - began > 0.3
    assert process.poll() is None
    assert rig.process("h0/python3") is process
    process.signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    process.restart()
    assert process.poll() is None
    assert process.stop() == -signal.SIGTERM


def test_a_process_that_does_not_become_ready_says_why_and_is_ended(devices: NetnsRig, rig: RigFabric) -> None:
    with pytest.raises(InfrastructureError, match=r"ended with exit code 7 before it was ready(?s:.*)because"):
        rig.host("h0").popen(["sh", "-c", "echo because; exit 7"], ready=Ready(line="never"))
    with pytest.raises(InfrastructureError, match=r"was not ready within 0\.5 s"):
        rig.host("h0").popen(["sleep", "9171"], ready=Ready(line="never", timeout_s=0.5))
    until(lambda: devices.processes("h0", "sleep 9171") == [], "it is gone there")


def test_what_a_process_left_in_its_session_ends_with_it(devices: NetnsRig, rig: RigFabric) -> None:
    process = rig.host("h0").popen(["sh", "-c", "sleep 9172 & echo on"], ready=Ready(line="on"))
    assert process.wait(10) == 0
    assert devices.processes("h0", "sleep 9172") == []


def test_a_connection_that_is_cut_ends_what_ran_and_the_next_command_makes_another(
    devices: NetnsRig, rig: RigFabric
) -> None:
    process = rig.host("h0").popen(["sleep", "9175"])
    devices.cut("h0")
    assert process.wait(20) == -signal.SIGKILL
    assert process.lost == "the connection to h0 ended"
    until(lambda: devices.processes("h0", "sleep 9175") == [], "it is gone there")
    assert rig.host("h0").run(["echo", "again"]).stdout == "again\n"


def test_code_that_does_not_fit_the_hosts_is_refused_by_name_and_not_sent(
    rig: RigFabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.code, "python", "python3.99")
    reason = rig.capabilities.reason_against("path-probes")
    assert reason is not None
    assert "h0: no python3.99 there" in reason
    with pytest.raises(UnsupportedError, match=r"python3\.99"):
        rig.agent_sites(["h0"])


def test_hosts_with_clocks_of_their_own_are_refused_by_name(rig: RigFabric, monkeypatch: pytest.MonkeyPatch) -> None:
    warden = rig.wardens.of("h1")
    monkeypatch.setattr(warden, "facts", {**warden.facts, "boot": "another"})
    reason = rig.capabilities.reason_against("mrc-nic")
    assert reason is not None
    assert reason.startswith("h1 have clocks of their own")
    assert "link-down" in rig.capabilities.present


def test_names_and_what_is_not_there_are_told(rig: RigFabric) -> None:
    with pytest.raises(LabError, match="nearest"):
        rig.host("h7")
    with pytest.raises(LabError, match="p0-t0-0 is not a host"):
        rig.host("p0-t0-0")
    with pytest.raises(UsageError, match="no process is h0/relay"):
        rig.process("h0/relay")
    with pytest.raises(UnsupportedError, match="share no folder"):
        _ = rig.folder
    assert {"link-down", "reboot", "processes"} <= rig.capabilities.present
    assert rig.capabilities.reason_against("gray-loss") == "no driver makes a device do this to chosen packets"


def test_a_rig_has_one_holder_at_a_time(devices: NetnsRig, rig: RigFabric) -> None:
    with pytest.raises(BusyError, match="ssh-rig"):
        bring_up(devices.lab)
    assert rig.check() == []


def test_a_device_that_is_away_keeps_the_rig_from_being_handed_out(devices: NetnsRig, database: Database) -> None:
    hidden = devices.socket("p1-t1-0").rename(devices.folder / "hidden")
    try:
        with pytest.raises(InfrastructureError, match=r"1 of 10 devices do not answer(?s:.*)p1-t1-0: nobody accepts"):
            bring_up(devices.lab)
    finally:
        hidden.rename(devices.socket("p1-t1-0"))
    assert Leases(database).list()[0].lease is None


@pytest.mark.parametrize("name", ["h0:p0~p0-t0-0", "p1-t0-0~p1-t1-1"])
def test_a_link_that_two_faults_hold_is_up_when_both_have_let_go(devices: NetnsRig, rig: RigFabric, name: str) -> None:
    from testbed.fabric.conditions import PortDown

    link = rig.link(name)
    for port in (link.b, link.a):
        first, second = rig.impose("one", [PortDown(port)]), rig.impose("two", [PortDown(port)])
        before, after = first.stamps[PortDown(port)]
        assert before < after <= time.time_ns()
        assert rig.check() != []
        assert rig.check(beside_faults=True) == []
        first.lift()
        assert rig.check() != []
        second.lift()
        assert rig.check() == devices.fabric.check() == []


DIES = """
import os, signal, sys
from testbed.fabric.rig.fabric import bring_up
from testbed.lab import Lab
rig = bring_up(Lab.load(sys.argv[1]))
rig.host("h0").popen(["sh", "-c", "setsid sleep 9174 & sleep 9174"])
rig.set_link(rig.lab.topology.link("p0-t0-0~p0-t1-0"), up=False)
print("on", flush=True)
if sys.argv[2] == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
signal.pause()
"""


def test_nothing_runs_on_devices_any_more_when_the_run_is_killed(devices: NetnsRig, database: Database) -> None:
    from testbed.fabric.rig.healing import heal

    done = subprocess.run([sys.executable, "-c", DIES, str(devices.file), "dies"], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    until(lambda: devices.processes("h0", "9174") == [], "what it started is gone, though nobody is there to end it")
    with pytest.raises((BusyError, UnhealthyError)):
        bring_up(devices.lab)
    Leases(database).release(Leases(database).find(devices.lab.name).id)
    assert [outcome.healed for outcome in heal(database)] == [True]
    until(lambda: devices.fabric.check() == [], "carrier is back")
    bring_up(devices.lab).close()


def test_a_run_that_loses_its_lease_runs_nothing_on_devices_any_more(devices: NetnsRig, database: Database) -> None:
    """It is not there to end anything itself: stopped, as a machine that sleeps."""
    from testbed.fabric.rig.healing import heal

    argv = [sys.executable, "-c", DIES, str(devices.file), "lives"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == b"on\n"
            assert devices.processes("h0", "9174") != []
            os.kill(run.pid, signal.SIGSTOP)
            until(lambda: devices.processes("h0", "9174") == [], "one heartbeat later nothing runs", seconds=25)
        finally:
            run.kill()
    Leases(database).release(Leases(database).find(devices.lab.name).id)
    assert [outcome.healed for outcome in heal(database)] == [True]
    until(lambda: devices.fabric.check() == [], "carrier is back")
