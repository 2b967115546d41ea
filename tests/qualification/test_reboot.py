"""Switches reboot and links fail under path probes (paper §4: T1 and T0 reboots, link cuts)."""

from __future__ import annotations

import pytest

from testbed.experiment.measurement import ProbesMeasured
from testbed.fabric.protocols import Fabric
from testbed.faults.catalogue import Faults
from testbed.lab import Tier
from testbed.pytest_plugin import Measure, Showing, unknown
from testbed.traffic.workloads import Traffic

pytestmark = pytest.mark.alone


def assert_only_dead_evs_lost(shown: Showing, measured: ProbesMeasured, plane: int) -> None:
    """Loss equals the packets sent on the dead EVs while they were dead, and the other planes lost nothing.

    The outage derived from these losses and the one derived from gaps between arrivals agree, on each dead EV, within
    max(10 ms, 2 sending intervals).
    """
    planes = {path.plane for path in measured.flows.paths} - {plane}
    lost = {survivor: measured.value("lost", f"plane {survivor}") for survivor in planes}
    shown.told("packets lost on its plane", measured.value("lost", f"plane {plane}"), "packets")
    shown.told("packets lost on other planes", sum(lost.values()), "packets")
    assert measured.explained, "\n".join(measured.reasons)
    shown.explained(measured)
    assert measured.value("lost", f"plane {plane}") > 0
    paced = [entry for entry in measured.agreements if entry.paced]
    if not paced:
        unknown("this machine held the sender up on every dead EV")
    assert [entry for entry in paced if not entry.agrees] == []
    assert lost == dict.fromkeys(planes, 0)


@pytest.mark.requires("reboot")
@pytest.mark.parametrize("tier", [Tier.T1, Tier.T0])
def test_a_reboot_costs_only_what_was_sent_through_the_switch(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing, tier: Tier
) -> None:
    flows = traffic.probes(rate=400)
    target = fabric.t1(carrying=flows) if tier is Tier.T1 else fabric.t0(carrying=flows)
    with flows.running(), faults.reboot(target) as reboot:
        reboot.wait("forwarding")
    plane = fabric.lab.topology.plane_of(target.name)
    assert plane is not None
    assert_only_dead_evs_lost(shown, measure(flows, reboot), plane)


@pytest.mark.requires("link-down")
@pytest.mark.parametrize("above", [Tier.HOST, Tier.T0])
def test_a_cut_link_costs_only_the_evs_on_it(
    fabric: Fabric, traffic: Traffic, faults: Faults, measure: Measure, shown: Showing, above: Tier
) -> None:
    flows = traffic.probes(rate=400)
    link = fabric.link(above=above, carrying=flows)
    with flows.running(), faults.link_down(link) as cut:
        cut.wait("carrier lost")
        flows.wait_rounds(10)
    assert_only_dead_evs_lost(shown, measure(flows, cut), link.plane)
