"""Paths, planes and EVs in good times: every path carries what is sent on it, and planes share evenly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from testbed.fabric.protocols import Fabric
from testbed.pytest_plugin import Measure, Showing
from testbed.qualify.checks import across, line_rate, mean_goodput, nothing_failed, room_for_every_host
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone


def test_every_path_delivers_on_its_own_plane(
    fabric: Fabric, traffic: Traffic, measure: Measure, shown: Showing
) -> None:
    """Point 2: EV to uSIDs to port, for all paths of all pairs; none goes astray."""
    flows = traffic.probes("all")
    with flows.running():
        flows.wait_rounds(5)
    measured = measure.take(flows)
    sent, arrivals = flows.outcome.samples.sent, flows.outcome.samples.arrivals
    paths = {(number, ev) for number, pair in enumerate(flows.pairs) for ev in flows.evs[pair]}
    used = set(zip(sent["flow"].tolist(), sent["ev"].tolist(), strict=True))
    came = set(zip(arrivals["flow"].tolist(), arrivals["ev"].tolist(), strict=True))
    shown.told("paths", len(paths), "count")
    shown.equal("paths not probed", len(paths - used), 0, "count")
    shown.equal("paths that delivered nothing", len(used - came), 0, "count")
    shown.equal("arrivals on a wrong plane", measured.value("wrong_plane"), 0, "packets")
    shown.explained(measured)


def test_planes_share_evenly_whatever_the_number_of_evs(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """Point 3: an equal count of EVs for each plane, in rotation: planes within 2%, and EVs of a plane within 10%.

    The limits are ours; the paper says that planes stay equal.
    """
    pair = across(fabric)
    planes = fabric.lab.planes
    for evs in sorted({planes, 2 * planes, len(fabric.addresses.evs(*pair))}):
        flows = traffic.mrc([pair], message=64 * 1024, depth=2, evs_per_qp=evs)
        with flows.running():
            flows.wait_messages(40)
        nothing_failed(shown, flows)
        first = flows.outcome.samples.sent
        by_plane = np.bincount(first["plane"], minlength=planes)
        imbalance = float(by_plane.max() / by_plane.mean())
        shown.at_most(f"plane imbalance, {evs} EVs", imbalance, 1.02, "ratio", timed=flows)
        uses = np.array(list(Counter(first["ev"].tolist()).values()))
        shown.at_most(f"EV imbalance, {evs} EVs", float(uses.max() / uses.mean()), 1.1, "ratio", timed=flows)


def test_a_small_message_there_and_back(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """Paper §4: 2 bytes take 5.09 µs within a T0 and 6.54 µs across a T1; longer across, in shape.

    Software's own delay does not scale and is most of it here: the scaled time is told, and only the order is asked.
    """
    hosts = fabric.lab.topology.hosts
    near = traffic.write_lat((hosts[0], hosts[1]), size=2, iterations=300)
    far = traffic.write_lat(across(fabric), size=2, iterations=300)
    for name, result in (("T0-local", near), ("across T1", far)):
        shown.told(f"{name}, 2 bytes", result.value("write_lat_typical"), "s")


def test_every_pair_of_a_permutation_gets_its_share(fabric: Fabric, traffic: Traffic, shown: Showing) -> None:
    """Paper §4, permutation: one queue pair of MRC carries 390 of 400 Gbit/s on all flows.

    97.5%, of a rate in which headers count; of what the header leaves we ask 90% of the slowest flow.
    """
    room_for_every_host(fabric)
    flows = traffic.mrc("permutation", message=256 * 1024, depth=4)
    with flows.running():
        flows.go_on_for(1.5)
    nothing_failed(shown, flows)
    line = line_rate(fabric, flows)
    if line is None:
        pytest.skip("not run: this lab's links have no rate to compare with")
    share = line / len(flows.flows)
    slowest = min(mean_goodput(flows, number) for number in range(len(flows.flows)))
    shown.told("slowest flow", slowest, "bit/s")
    shown.at_least("slowest flow over its share of the line", slowest / share, 0.9, "ratio", timed=flows)
