"""The process that holds a fault is killed in the middle of it: the next command finds the fabric as it was."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from testbed.cli import main
from testbed.fabric.netns import build, foreign
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.netns.state import NodeState
from testbed.faults.spec import KINDS, FaultSpec
from testbed.pytest_plugin.outcomes import NOT_RUN
from tests.netns.conftest import QUICK_REBOOT, TINY, realise
from tests.netns.faults.wire import wire
from tests.netns.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
LINK = "p0-t0-0~p0-t1-0"

#: Of every kind of the catalogue, one or more: what a process is killed in the middle of.
SPECS = {
    "link_down": [FaultSpec("link_down", LINK)],
    "flap": [FaultSpec("flap", LINK, {"period": 60, "duty": 0.9})],
    "nic_port_down": [FaultSpec("nic_port_down", "h1:p0")],
    "transceiver_flap": [FaultSpec("transceiver_flap", "h1", {"down": 60})],
    "blackhole": [FaultSpec("blackhole", "p0-t0-0", {"usid": "p0-t1-0"})],
    "misroute": [FaultSpec("misroute", "p0-t0-0", {"usid": "p0-t1-0", "port": "t1-1"})],
    "frozen": [FaultSpec("frozen", "p0-t1-0")],
    "reboot": [FaultSpec("reboot", "p0-t1-0"), FaultSpec("reboot", "p0-t1-0", {"kind": "warm"})],
    "power_loss": [FaultSpec("power_loss", "p0-t1-0")],
    "one_way_down": [FaultSpec("one_way_down", LINK)],
    "loss": [FaultSpec("loss", LINK, {"packets": [1, 2]})],
    "corruption": [FaultSpec("corruption", "h0>h1:0x000", {"every": 2})],
    "duplication": [FaultSpec("duplication", LINK)],
    "ecn_mark": [FaultSpec("ecn_mark", LINK, {"share": 0.5})],
    "rate": [FaultSpec("rate", LINK, {"rate": "1 Mbit/s"})],
    "delay": [FaultSpec("delay", LINK, {"delay": "20 ms"})],
    "kill": [FaultSpec("kill", "h0/sleep")],
    "pause": [FaultSpec("pause", "h0/sleep")],
    "restart": [FaultSpec("restart", "h0/sleep", {"down": 60})],
}
#: What holds nothing of the fabric: a killed process stays dead, and one that only its starter can start again ends
#: with that.
HOLDS_NOTHING = {"kill", "restart"}
#: An address is moved by whoever shares it out, whose death is in test_spread_paths.py.
ELSEWHERE = {"move_address"}

PROGRAM = """
import sys, json, signal
from testbed.fabric.netns.fabric import attach
from testbed.faults.catalogue import Faults
from testbed.faults.spec import FaultSpec
fabric = attach(sys.argv[1])
spec = FaultSpec.from_dict(json.loads(sys.argv[2]))
own = fabric.host("h0").popen(["sleep", "61"]) if spec.kind == "restart" else None
with Faults(fabric).make(spec, own) as fault:
    fault.listen(lambda event: print(event.what, flush=True))
    signal.pause()
"""


@pytest.fixture(scope="module")
def fabric() -> Iterator[NetnsFabric]:
    with realise(TINY + QUICK_REBOOT.replace("50 ms", "60 s")) as made:
        yield made


def every_kind() -> list[FaultSpec]:
    """A kind that has no entry above fails here, before any test is collected."""
    return [spec for kind in KINDS if kind not in ELSEWHERE for spec in SPECS[kind]]


def kernel_state(fabric: NetnsFabric) -> dict[str, NodeState]:
    """Addresses, neighbours, routes, queues, markers, tables of rules: all that is read back of every node."""
    found: dict[str, NodeState] = {}

    def keep(node: str, state: NodeState) -> list[str]:
        found[node] = state
        return []

    build.find_differences(fabric.client, fabric.plan, list(fabric.plan.namespaces), keep)
    return found


def running(fabric: NetnsFabric) -> list[str]:
    return [" ".join(each["argv"]) for each in foreign.listing(fabric.client) if each["argv"][0] == "sleep"]


def process_state(fabric: NetnsFabric, pid: int) -> str:
    """One letter: S sleeps, T is stopped."""
    stat = fabric.host("h0").run(["cat", f"/proc/{pid}/stat"]).stdout
    return str(stat.rpartition(")")[2].split()[0])


@pytest.mark.once
@pytest.mark.parametrize("spec", every_kind(), ids=lambda spec: f"{spec.kind} {spec.target}")
def test_the_command_after_a_killed_process_finds_the_fabric_as_it_was(
    fabric: NetnsFabric, spec: FaultSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = fabric.capabilities.reason_against(spec.about.needs)
    if reason is not None:
        pytest.skip(f"{NOT_RUN}this fabric cannot do {spec.kind}: {reason}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    before = kernel_state(fabric)
    sleeper = fabric.host("h0").popen(["sleep", "60"])
    hits = "control lost" if spec.parameters.get("kind") == "warm" else spec.about.hits
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, fabric.name, json.dumps(spec.as_dict())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert any(line.strip() == hits for line in process.stdout)
        assert (fabric.client.claims()[0] == []) == (spec.kind in HOLDS_NOTHING)
        process.send_signal(signal.SIGKILL)
    done = CliRunner().invoke(main, ["heal", fabric.name])
    assert done.exit_code == 0, done.output
    assert f"left by process {process.pid}: healed, everything is as planned\n" in done.output
    assert fabric.client.claims() == ([], [])
    assert fabric.check() == []
    assert fabric.client.status()["unhealed"] == []
    assert kernel_state(fabric) == before
    with wire(fabric) as line:
        line.passes()
    fabric.switch("p0-t1-0").run(["true"])
    left = [] if spec.kind == "kill" else ["sleep 60"]
    wait_until(lambda: running(fabric) == left, f"{left} runs and nothing else")
    if left:
        assert process_state(fabric, sleeper.pid) == "S"
    sleeper.stop(0.0)
    assert CliRunner().invoke(main, ["heal", fabric.name]).output == "nothing was left behind\n"
