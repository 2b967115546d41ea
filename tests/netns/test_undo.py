"""A process that dies in the middle of a fault leaves the fabric healed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import TINY, BringUp
from tests.netns.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

CHANGES = {
    "a host's link down": "f.set_link(f.link('h0:p0~p0-t0-0'), up=False)\n",
    "links down": "f.set_link(f.link('p0-t0-0~p0-t1-0'), up=False)\nf.set_link(f.link('p1-t0-1~p1-t1-1'), up=False)\n",
    "a reboot with links lost": "f.switch('p0-t1-0').reboot('cold', print, stop=lambda s: wait())\n",
    "a reboot with empty tables": "n = iter([0, 1])\n"
    "f.switch('p1-t0-0').reboot('cold', print, stop=lambda s: next(n) and wait())\n",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_killed_process_changed_is_taken_back(up: BringUp, change: str) -> None:
    fabric = up(TINY)
    die_in_the_middle(fabric, CHANGES[change])
    wait_until(lambda: fabric.check() == [], f"the fabric healed: {fabric.check()}", 5.0)
    status = fabric.client.status()
    assert (status["changes"], status["unhealed"]) == ([], [])
    flows = Traffic(fabric).probes("all")
    with flows.running():
        flows.wait_rounds(1)
    assert len(flows.outcome.samples.arrivals) == len(flows.outcome.samples.sent)


def die_in_the_middle(fabric: NetnsFabric, change: str) -> None:
    """Another process attaches, makes a change, says so, and is killed while it waits."""
    code = (
        "import signal, sys\nfrom testbed.fabric.netns.fabric import attach\n"
        "def wait():\n  print('changed', flush=True)\n  signal.pause()\n"
        f"f = attach(sys.argv[1])\n{change}wait()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, fabric.name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert any("changed" in line for line in process.stdout)
        assert fabric.check() != []
        assert fabric.client.status()["changes"] != []
        process.kill()
