"""The wire format on a fabric: every packet of a run, captured where it arrives, held against the tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.fabric.netns import capture
from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.protocols import Fabric
from testbed.faults.catalogue import Faults
from testbed.pytest_plugin import Showing
from testbed.qualify.checks import across, nothing_failed, uplinks
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone


@pytest.mark.requires("link-down")
def test_every_packet_is_as_the_tables_have_it(
    fabric: Fabric, traffic: Traffic, faults: Faults, shown: Showing, tmp_path: Path
) -> None:
    """Point 1: headers and opcodes of WRITE_IMM, ACK, SACK, probes, port status, as a capture shows."""
    if not isinstance(fabric, NetnsFabric):
        pytest.skip("not run: this fabric's ports cannot be captured")
    src, dst = across(fabric)
    flows = traffic.mrc([(src, dst), (dst, src)], message=10_001, depth=2, immediate=True)
    file = tmp_path / "run.pcapng"
    with capture.start(fabric, capture.ports_of(fabric, [src, dst]), file), flows.running():
        flows.wait_messages(10)
        with faults.link_down(uplinks(fabric, src)[0]) as cut:
            cut.wait("carrier lost")
            flows.wait_messages(10)
        flows.wait_messages(4)
    nothing_failed(shown, flows)
    command = [sys.executable, "-m", "testbed.cli", "mrc", "decode", str(file), "-q", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    summary = json.loads(done.stdout.splitlines()[-1])["summary"]
    shown.at_least("MRC packets captured", summary["mrc"], 100, "packets")
    shown.equal("packets that deviate", summary["deviating"], 0, "packets")
