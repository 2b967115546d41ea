"""Several fabrics, several processes, and their ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError, LabError, UnsupportedError
from testbed.fabric.netns import build, messages
from testbed.fabric.netns.batches import ClaimRequest, Part
from testbed.fabric.netns.claims import port_resource
from testbed.fabric.netns.client import running_fabrics
from testbed.fabric.netns.fabric import NetnsFabric, attach, bring_up
from testbed.fabric.netns.keeper.namespaces import FIRST_FD
from testbed.lab import Lab
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import TINY, BringUp
from tests.netns.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def execute(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Another process of the same user, with the testbed's modules."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_two_fabrics_do_not_see_each_other(up: BringUp) -> None:
    first, second = up(TINY), up(TINY)
    first.node("h0").run(["ip", "link", "set", "p0", "down"])
    assert first.check() != []
    assert second.check() == []
    flows = Traffic(second).probes("all")
    with flows.running():
        flows.wait_rounds(1)
    assert len(flows.outcome.samples.arrivals) == len(flows.outcome.samples.sent)
    assert set(running_fabrics()) >= {first.name, second.name}
    first.close()
    assert first.name not in running_fabrics()
    assert second.check() == []


def test_a_name_is_taken_once(up: BringUp) -> None:
    fabric = up(TINY)
    with pytest.raises(InfrastructureError, match=r"a fabric of this name is already running") as caught:
        bring_up(Lab.parse(TINY), name=fabric.name)
    assert "testbed down" in caught.value.remedy
    assert fabric.check() == []
    fabric.close()
    assert up(TINY, name=fabric.name).check() == []


def test_nothing_is_attached_to_that_is_not_there() -> None:
    with pytest.raises(InfrastructureError, match="no fabric named 'nowhere' is running"):
        attach("nowhere")


def test_an_attached_process_sees_and_does_what_the_first_can(tiny: NetnsFabric) -> None:
    code = (
        "import sys\nfrom testbed.fabric.netns.fabric import attach\n"
        "f = attach(sys.argv[1])\n"
        "print(f.check(), f.lab.name, f.client.facts['name'])\n"
        "print(f.host('h0').run(['ls', '/sys/class/net']).stdout.split())\n"
    )
    done = execute(code, tiny.name)
    assert done.stdout == f"[] tiny {tiny.name}\n['lo', 'p0', 'p1']\n", done.stderr
    assert tiny.check() == []


def test_a_detached_fabric_outlives_its_runner_and_another_process_ends_it() -> None:
    name = f"test-{os.getpid()}-detached"
    code = (
        "import sys\nfrom testbed.fabric.netns.fabric import bring_up\nfrom testbed.lab import Lab\n"
        "f = bring_up(Lab.parse(sys.argv[1]), name=sys.argv[2])\nf.detach()\nprint(f.client.keeper_pid)\n"
    )
    done = execute(code, TINY, name)
    assert done.returncode == 0, done.stderr
    keeper = int(done.stdout)
    fabric = attach(name)
    try:
        assert fabric.client.keeper_pid == keeper
        assert fabric.check() == []
    finally:
        fabric.close()
    assert not Path(f"/proc/{keeper}").exists()
    assert name not in running_fabrics()


def test_a_fabric_that_is_not_detached_ends_with_its_runner() -> None:
    name = f"test-{os.getpid()}-left"
    code = (
        "import os, sys\nfrom testbed.fabric.netns.fabric import bring_up\nfrom testbed.lab import Lab\n"
        "f = bring_up(Lab.parse(sys.argv[1]), name=sys.argv[2])\nprint(f.client.warden_pid, flush=True)\n"
        "pidfd = os.pidfd_open(f.client.warden_pid)\nos.write(1, b'')\nos._exit(0)\n"
    )
    done = execute(code, TINY, name)
    assert done.returncode == 0, done.stderr
    warden = Path("/proc") / done.stdout.strip()
    wait_until(lambda: not warden.exists() or "State:\tZ" in (warden / "status").read_text(), "the warden's end", 2.0)
    assert name not in running_fabrics()


def test_a_runner_that_is_killed_takes_its_fabric_along_though_its_socket_stays_open() -> None:
    """A child it forked has inherited the connection, so that the keeper never sees its end: the warden must."""
    name = f"test-{os.getpid()}-forked"
    code = (
        "import os, signal, sys\nfrom testbed.fabric.netns.fabric import bring_up\nfrom testbed.lab import Lab\n"
        "f = bring_up(Lab.parse(sys.argv[1]), name=sys.argv[2])\nchild = os.fork()\n"
        "if child == 0:\n  signal.alarm(30)\n  while True: signal.pause()\n"
        "print(child, flush=True)\nsignal.pause()\n"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", code, TINY, name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with runner:
        assert runner.stdout is not None
        child = int(runner.stdout.readline())
        assert name in running_fabrics()
        runner.kill()
        try:
            wait_until(lambda: name not in running_fabrics(), "the fabric's end", 2.0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_names_the_lab_does_not_have_are_refused(tiny: NetnsFabric) -> None:
    for ask, name in (
        (tiny.host, "h7"),
        (tiny.switch, "p0-t0-9"),
        (tiny.host, "p0-t0-0"),
        (tiny.switch, "h0"),
        (tiny.node, "x"),
    ):
        with pytest.raises(LabError, match=name):
            ask(name)
    with pytest.raises(LabError, match="p0-t0-0~p0-t1-7"):
        tiny.link("p0-t0-0~p0-t1-7")


def test_what_the_kernel_refuses_is_told_by_node_and_in_its_words(tiny: NetnsFabric) -> None:
    port = tiny.lab.topology.ports("h0")[0]
    requests = [messages.link_up(tiny.plan.ports[port]), messages.link_up(9999)]
    claim = ClaimRequest(port_resource(port), do=[Part(tiny.plan.namespaces["h0"], requests)])
    with pytest.raises(InfrastructureError, match=r"(?s)port h0:p0, request 1.*(ENODEV|No such device)"):
        tiny.client.claim("F0-1", "a test", [claim])
    assert tiny.client.claims() == ([], [])


LIMITED = (
    "import resource, sys\nfrom testbed.errors import UnsupportedError\n"
    "from testbed.fabric.netns.fabric import bring_up\nfrom testbed.lab import Lab\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))\n"
    "try:\n  bring_up(Lab.parse(sys.argv[2]))\n"
    "except UnsupportedError as error:\n  print(error)\n"
    "else:\n  print('up')\n"
)


def test_too_few_descriptors_are_told_before_anything_is_made() -> None:
    nodes = len(Lab.parse(TINY).topology.nodes)
    least = FIRST_FD + 2 * nodes
    done = execute(LIMITED, str(least - 1), TINY)
    assert f"takes {least} open files" in done.stdout, done.stdout + done.stderr
    assert f"found:    a hard limit of {least - 1}" in done.stdout
    assert "remedy:   raise the hard limit of open files" in done.stdout


def test_just_enough_descriptors_are_enough() -> None:
    nodes = len(Lab.parse(TINY).topology.nodes)
    done = execute(LIMITED, str(FIRST_FD + 2 * nodes), TINY)
    assert done.stdout == "up\n", done.stdout + done.stderr


def test_too_little_memory_is_told_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "available_mib", lambda: 10.0)
    with pytest.raises(UnsupportedError, match=r"(?s)80 nodes and 256 links takes about \d+ MiB.*10 MiB available"):
        bring_up(Lab.load("reference"))
    build.check_machine(10, 10)


def test_a_runner_can_end_what_it_detached(up: BringUp) -> None:
    fabric = up(TINY)
    keeper = fabric.client.keeper_pid
    fabric.detach()
    assert fabric.client.keeper_pid == keeper
    fabric.close()
    assert not Path(f"/proc/{keeper}").exists()
