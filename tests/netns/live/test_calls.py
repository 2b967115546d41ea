"""Calls are told while they go on: a real Prometheus sees each plane, and a link that is down on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.faults.catalogue import Faults
from testbed.live.counting import Count
from testbed.live.exporter import Exporter
from testbed.live.views import LIVE
from testbed.traffic.workloads import Traffic
from tests.monitoring import prometheus
from tests.netns.conftest import BringUp

LAB = "name: talking\nplanes: 2\nt0_per_plane: 4\nt1_per_plane: 2\nhosts_per_t0: 1\n"

pytestmark = [pytest.mark.alone, pytest.mark.once, pytest.mark.timeout(240)]


@pytest.fixture
def fabric(up: BringUp) -> NetnsFabric:
    return up(LAB)


def test_each_plane_of_calls_and_a_link_that_is_down_are_told(fabric: NetnsFabric, tmp_path: Path) -> None:
    calls, faults = Traffic(fabric).voice(1, path="sprayed"), Faults(fabric)
    link = next(each for each in fabric.lab.topology.links if each.name.startswith(f"{calls.places.clients[0]}:p1"))

    def rate(name: str, plane: int) -> str:
        return f'rate(mrc_testbed_plane_{name}_total{{workload="calls",plane="{plane}"}}[3s])'

    with Exporter(0, suite="here") as exporter:
        target = exporter.url.removeprefix("http://").removesuffix("/metrics")
        with prometheus(tmp_path, target, interval="500ms") as server, calls.running():
            slowest = 'min(rate(mrc_testbed_plane_goodput_bytes_total{workload="calls"}[3s]))'
            server.until(lambda: server.value(slowest) > 0, "each plane has goodput")
            running = 'sum(mrc_testbed_processes{workload="calls",state="running"})'
            server.until(lambda: server.value(running) == 5, "client, relay, transceiver, backend and store are told")
            with faults.link_down(link) as cut:
                cut.wait("carrier lost")
                server.until(lambda: server.value(rate("lost_packets", 1)) > 1, "what relays send there is lost")
                assert server.value(rate("received_packets", 0)) > server.value(rate("received_packets", 1)) > 0
        (found,) = (table for (workload, _), table in LIVE.totals()[1].items() if workload == "calls")
    # Both ends saw what was told, and more: the last moments, which nobody looked at any more.
    wire = calls.outcome.wire.samples
    for plane in range(2):
        assert 0 < found[plane, Count.RECEIVED] <= found[plane, Count.SENT]
    legs = len(wire.flows)
    assert legs == 4, "up and down, client to relay and relay to transceiver"
    # Live counts begin with the first packet; those of the finished call when both ends are secured.
    assert found[:, Count.SENT].sum() >= 0.5 * len(wire.sent)
    assert found[1, Count.LOST] > 5 * found[0, Count.LOST]
    assert found[:, Count.LOST].sum() <= len(wire.sent)
    assert found[:, Count.REORDERED].sum() <= found[:, Count.RECEIVED].sum()
