"""Where the prober's loops go, what they can decide, and when each is sent."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given

from testbed.addressing import AddressPlan
from testbed.errors import LabError, UsageError
from testbed.lab import Lab
from testbed.localise.elements import Elements
from testbed.traffic.prober.loops import Loop, Reach, loops
from testbed.traffic.prober.schedule import affordable, schedule
from tests.unit.test_addressing_properties import SETTINGS, labs


def lab_of(planes: int, t0: int, t1: int, hosts: int) -> Lab:
    tree = {"name": "x", "planes": planes, "t0_per_plane": t0, "t1_per_plane": t1, "hosts_per_t0": hosts}
    return Lab.parse(json.dumps(tree))


def loops_of(lab: Lab) -> list[Loop]:
    return loops(AddressPlan(lab), lab.topology.hosts)


@SETTINGS
@given(labs())
def test_every_loop_leads_where_the_switches_tables_take_it(lab: Lab) -> None:
    plan = AddressPlan(lab)
    links = set(lab.topology.links)
    for loop in loops_of(lab):
        path = loop.path
        assert (path.nodes[0], path.nodes[-1]) == (loop.host, loop.end)
        assert plan.decode(loop.host, path.plane, plan.steer(path)) == path
        assert set(path.links) <= links
        if loop.reach is not Reach.WIDE:
            assert loop.end == loop.host, "home to the port it left from, with no peer"


@SETTINGS
@given(labs())
def test_every_port_has_its_t0_loop_and_one_over_each_of_its_t1s(lab: Lab) -> None:
    counts = Counter((loop.host, loop.path.plane, loop.reach) for loop in loops_of(lab))
    for link in lab.topology.links:
        if lab.topology.tier(link.a.node) == "host":
            above = sum(port.name.startswith("t1-") for port in lab.topology.ports(link.b.node))
            assert counts[link.a.node, link.plane, Reach.T0] == 1
            assert counts[link.a.node, link.plane, Reach.T1] == above


@SETTINGS
@given(labs())
def test_in_a_cycle_every_loop_is_sent_and_t0_loops_in_every_period(lab: Lab) -> None:
    found = loops_of(lab)
    hosts = [host for host in lab.topology.hosts if lab.topology.ports(host)]
    if not found:
        return
    made = schedule(found, hosts)
    assert {number for host in made.turns for turn in host for number in turn} == set(range(len(found)))
    for host, turns in zip(hosts, made.turns, strict=True):
        mine = {n for n, loop in enumerate(found) if loop.host == host and loop.reach is Reach.T0}
        assert all(mine <= set(turn) for turn in turns)
    assert made.rate <= 5_000 * 1.001
    assert made.period_ns >= 1_000_000


NIC_PORT = ("link", "direction", "direction")


@pytest.mark.parametrize(
    ("lab", "together"),
    [
        (Lab.load("laptop"), set()),
        (Lab.load("reference"), set()),
        (lab_of(2, 2, 1, 2), set()),
        (lab_of(1, 3, 2, 2), {("link", "host")}),
        (lab_of(2, 2, 2, 1), {NIC_PORT}),
        (lab_of(1, 2, 2, 1), {(*NIC_PORT, "host")}),
        (lab_of(2, 1, 2, 2), {("link", "switch", "direction", "direction")}),
    ],
    ids=["laptop", "reference", "one T1", "one plane", "one host per T0", "one plane, one host per T0", "one T0"],
)
def test_what_cannot_be_told_apart_on_which_lab(lab: Lab, together: set[tuple[str, ...]]) -> None:
    """As docs/prober.md says."""
    groups = Elements([loop.route() for loop in loops_of(lab)]).groups[:-1]
    assert {tuple(str(element.kind) for element in group) for group in groups if len(group) > 1} == together


def test_each_link_above_t0s_is_crossed_alike() -> None:
    counts = Counter(
        (hop.tail, hop.head)
        for loop in loops_of(Lab.load("reference"))
        if loop.reach is Reach.WIDE
        for hop in loop.route().hops[1:-1]
    )
    assert len(counts) == 256
    assert set(counts.values()) == {8}


def test_probes_take_at_most_a_two_hundredth_of_a_shaped_link() -> None:
    lab = Lab.load("laptop")
    found = loops_of(lab)
    made = schedule(found, lab.topology.hosts)
    rate = affordable(made, found, 10_000_000)
    made = schedule(found, lab.topology.hosts, rate)
    probes = Counter(number for host in made.turns for turn in host for number in turn)
    crossed: Counter[tuple[str, str]] = Counter()
    for number, times in probes.items():
        for hop in found[number].route().hops:
            crossed[hop.tail, hop.head] += times
    busiest = max(crossed.values()) / made.cycle_ns * 1e9
    assert busiest * 170 * 8 == pytest.approx(0.005 * 10_000_000, rel=0.01)


def test_ways_that_are_none_are_refused() -> None:
    plan = AddressPlan(Lab.load("laptop"))
    for switches in ([], ["p0-t1-0"], ["p0-t0-1"], ["p0-t0-0", "p0-t1-0"], ["p0-t0-0", "p1-t1-0", "p0-t0-0"]):
        with pytest.raises(LabError, match="no way from h0:p0 to h0:p0"):
            plan.through("h0", 0, switches)
    with pytest.raises(LabError, match="no way from h0:p0 to h2:p0"):
        plan.through("h0", 0, ["p0-t0-0"], "h2")
    assert plan.through("h0", 0, ["p0-t0-0"], "h1").nodes == ("h0", "p0-t0-0", "h1")


def test_a_rate_that_is_none_is_refused() -> None:
    lab = Lab.load("laptop")
    with pytest.raises(UsageError, match="at this rate"):
        schedule(loops_of(lab), lab.topology.hosts, 0)
    with pytest.raises(UsageError, match="nothing to probe"):
        schedule([], lab.topology.hosts)
