"""``testbed watch`` beside workloads of other processes: what it shows, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.lab import Tier
from testbed.live.telling import ask_all
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import BringUp
from tests.netns.live.test_exporter import LAB

pytestmark = [pytest.mark.alone, pytest.mark.once]


@pytest.fixture
def fabric(up: BringUp) -> NetnsFabric:
    return up(LAB)


def watching(fabric: NetnsFabric, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "testbed.cli", "watch", "--fabric", fabric.name, "--every", "300ms", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def looks(fabric: NetnsFabric) -> Iterator[Iterator[dict[str, Any]]]:
    """Lines of JSON of a watcher, as they come."""
    process = watching(fabric, "--json")
    assert process.stdout is not None
    try:
        yield (json.loads(line) for line in process.stdout)
    finally:
        process.kill()
        process.communicate()


def until(looks: Iterator[dict[str, Any]], holds: Any, what: str, seconds: float = 30) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    for look in looks:
        if holds(look):
            return look
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}; the last: {look}"
    raise AssertionError(f"the watcher ended before: {what}")


def test_planes_flows_and_faults_are_followed(fabric: NetnsFabric, looks: Iterator[dict[str, Any]]) -> None:
    idle = until(looks, lambda look: True, "a look")
    assert (idle["fabric"], idle["flows"], idle["faults"], idle["workloads"]) == (fabric.name, [], [], {})
    flows, faults = Traffic(fabric).probes(rate=500), Faults(fabric)
    link = fabric.link(above=Tier.T0, carrying=flows)
    with flows.running():
        good = until(looks, lambda look: all(plane["goodput"] for plane in look["planes"]), "each plane has goodput")
        assert good["workloads"] == {"probes": 1}
        assert {flow["flow"] for flow in good["flows"]} == set(flows.flows)
        rate = sum(flow["sent"] for flow in good["flows"])
        # Senders that were held up catch up: within one look that is not a little.
        assert 0.1 < rate / (500 * len(flows.flows)) < 10
        with faults.link_down(link) as cut:
            cut.wait("carrier lost")
            lossy = until(looks, lambda look: look["planes"][link.plane]["loss"], "the plane of the link loses packets")
            assert [plane["loss"] for plane in lossy["planes"] if plane["plane"] != link.plane] == [0]
            assert any(link.b.node in line or link.name in line for line in lossy["faults"]), lossy["faults"]
        until(looks, lambda look: not look["faults"], "the fault is healed")
    until(looks, lambda look: not look["workloads"], "the workload has ended")


def test_evs_of_transfers_are_followed(fabric: NetnsFabric, looks: Iterator[dict[str, Any]]) -> None:
    transfers = Traffic(fabric).mrc("permutation", message=16 * 1024)
    with transfers.running():
        look = until(looks, lambda look: look["planes"][0].get("evs"), "EVs are told")
    assert sum(plane["evs"]["good"] for plane in look["planes"]) == len(transfers.path_of)


def test_a_workload_that_tells_nothing_is_seen_by_its_ports(
    fabric: NetnsFabric, looks: Iterator[dict[str, Any]]
) -> None:
    one, other = fabric.lab.topology.hosts[0], fabric.lab.topology.hosts[-1]
    command = [sys.executable, "-m", "testbed.cli", "ping", one, other, "--all", "-c", "200", "--fabric", fabric.name]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        look = until(looks, lambda look: all(plane["received"] for plane in look["planes"]), "ports count packets")
        assert look["workloads"] == {}
    finally:
        process.kill()
        process.wait()


def test_without_a_terminal_it_prints_pictures_without_colours(fabric: NetnsFabric) -> None:
    with Traffic(fabric).probes(rate=200).running():
        out, errors = watching(fabric, "--for", "1s").communicate(timeout=60)
    assert errors == ""
    assert "\x1b" not in out
    assert out.count(f"{fabric.name} (tiny): 1 probes") >= 2
    assert "no fault in force" in out
    assert "h0>" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_when_it_is_told_to(fabric: NetnsFabric, number: signal.Signals) -> None:
    process = watching(fabric)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


def test_it_ends_with_the_fabric(up: BringUp) -> None:
    fabric = up(LAB)
    process = watching(fabric)
    assert process.stdout is not None
    process.stdout.readline()
    fabric.close()
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, f"{fabric.name} has ended\n")


@pytest.mark.parametrize("colour", [True, False])
def test_on_a_terminal_one_picture_follows(fabric: NetnsFabric, colour: bool) -> None:
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    command = [sys.executable, "-m", "testbed.cli", "watch", "--fabric", fabric.name, "--every", "200ms", "--for", "2s"]
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment if colour else environment | {"NO_COLOR": "1"},
    )
    os.close(slave)
    shown, deadline = b"", time.monotonic() + 60
    try:
        while select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                part = os.read(master, 65536)
            except OSError:  # The other end has closed.
                break
            shown += part
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert shown.count(b"no fault in force") >= 3
    # A cursor that goes up draws over what was there; green is a colour.
    assert b"\x1b[1A" in shown
    assert (b"\x1b[32m" in shown) == colour


def test_a_process_that_was_killed_leaves_nothing_that_tells(fabric: NetnsFabric) -> None:
    flows = Traffic(fabric).probes(rate=100)
    with flows.running():
        assert [one["fabric"] for document in ask_all() for one in document["workloads"]] == [fabric.name]
    assert [document for document in ask_all() if document["pid"] == os.getpid()] == []
