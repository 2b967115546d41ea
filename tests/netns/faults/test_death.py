"""The process that holds a fault is killed: the fabric is as it was."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.spec import KINDS, FaultSpec
from tests.netns.conftest import QUICK_REBOOT, TINY, realise
from tests.netns.faults.wire import wire
from tests.netns.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
LINK = "p0-t0-0~p0-t1-0"

#: One of every kind that holds something.
HELD = [
    FaultSpec("link_down", LINK),
    FaultSpec("flap", LINK, {"period": 60, "duty": 0.9}),
    FaultSpec("nic_port_down", "h1:p0"),
    FaultSpec("transceiver_flap", "h1", {"down": 60}),
    FaultSpec("blackhole", "p0-t0-0", {"usid": "p0-t1-0"}),
    FaultSpec("misroute", "p0-t0-0", {"usid": "p0-t1-0", "port": "t1-1"}),
    FaultSpec("frozen", "p0-t1-0"),
    FaultSpec("reboot", "p0-t1-0"),
    FaultSpec("reboot", "p0-t1-0", {"kind": "warm"}),
    FaultSpec("power_loss", "p0-t1-0"),
    FaultSpec("one_way_down", LINK),
    FaultSpec("loss", LINK, {"packets": [1, 2]}),
    FaultSpec("corruption", "h0>h1:0x000", {"every": 2}),
    FaultSpec("duplication", LINK),
    FaultSpec("ecn_mark", LINK, {"share": 0.5}),
    FaultSpec("rate", LINK, {"rate": "1 Mbit/s"}),
    FaultSpec("pause", "h0/sleep"),
]
#: What holds nothing: a killed process stays dead, a restarted one is its starter's. An address is moved by whoever
#: shares it out, whose death is in test_spread_paths.py.
NOT_HELD = {"kill", "restart", "delay", "move_address"}

PROGRAM = """
import sys, json, signal
from testbed.fabric.netns.fabric import attach
from testbed.faults.catalogue import Faults
from testbed.faults.spec import FaultSpec
fabric = attach(sys.argv[1])
with Faults(fabric).make(FaultSpec.from_dict(json.loads(sys.argv[2]))) as fault:
    fault.listen(lambda event: print(event.what, flush=True))
    signal.pause()
"""


@pytest.fixture(scope="module")
def fabric() -> Iterator[NetnsFabric]:
    with realise(TINY + QUICK_REBOOT.replace("50 ms", "60 s")) as made:
        yield made


def test_every_kind_is_here() -> None:
    assert {spec.kind for spec in HELD} | NOT_HELD == set(KINDS)


@pytest.mark.parametrize("spec", HELD, ids=lambda spec: f"{spec.kind} {spec.target}")
def test_a_killed_process_leaves_the_fabric_as_it_was(fabric: NetnsFabric, spec: FaultSpec) -> None:
    import json

    sleeper = fabric.host("h0").popen(["sleep", "60"])
    hits = "control lost" if spec.parameters.get("kind") == "warm" else KINDS[spec.kind].hits
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, fabric.name, json.dumps(spec.as_dict())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert any(line.strip() == hits for line in process.stdout)
        assert fabric.client.claims()[0] != []
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: fabric.client.claims()[0] == [], "its claims are released")
    wait_until(lambda: fabric.check() == [], "the fabric is as it was")
    assert fabric.client.status()["unhealed"] == []
    with wire(fabric) as line:
        line.passes()
    fabric.switch("p0-t1-0").run(["true"])
    stat = fabric.host("h0").run(["cat", f"/proc/{sleeper.pid}/stat"]).stdout
    assert stat.rpartition(")")[2].split()[0] == "S"
    sleeper.stop(0.0)
