"""What must hold of the address plan of every fabric, with parts absent and uSIDs adopted."""

from __future__ import annotations

import json
from itertools import pairwise, permutations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from testbed.addressing import ORDINARY, AddressPlan
from testbed.errors import LabError
from testbed.lab import Lab

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


@st.composite
def labs(draw: st.DrawFn, *, adopted: bool = True) -> Lab:
    """A small fabric with anything left out and, where asked for, some uSIDs adopted."""
    planes, t0, hosts = draw(st.integers(1, 8)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    t1 = draw(st.integers(0 if t0 == 1 else 1, 3))
    tree: dict[str, object] = {
        "name": "x",
        "planes": planes,
        "t0_per_plane": t0,
        "t1_per_plane": t1,
        "hosts_per_t0": hosts,
    }
    whole = Lab.parse(json.dumps(tree)).topology
    parts = [f"p{plane}" for plane in range(planes)] + list(whole.nodes) + [link.name for link in whole.links]
    parts += [str(port) for node in whole.nodes for port in whole.ports(node)]
    tree["absent"] = draw(st.lists(st.sampled_from(parts), max_size=4))
    if adopted:
        switches = draw(st.lists(st.sampled_from(whole.switches), unique=True, max_size=6))
        ports = [str(port) for host in whole.hosts for port in whole.ports(host)]
        usids = dict.fromkeys(draw(st.lists(st.sampled_from(ports), unique=True, max_size=6)), 0)
        # Close to what the plan gives, so that swaps and near clashes come up; a clash is refused below.
        near = st.sampled_from([0x1000, 0x1001, 0x1200, 0x2000, 0x2001, 0x2201]) | st.integers(1, 0xDFFF)
        usids |= {switch: draw(near) for switch in switches}
        local = st.integers(0xE000, 0xE003) | st.integers(0xE000, 0xFFFF) | near
        usids = {name: usid or draw(local) for name, usid in usids.items()}
        tree["addressing"] = {"usids": usids}
    try:
        return Lab.parse(json.dumps(tree))
    except LabError:
        assume(False)
        raise


def pairs(lab: Lab) -> list[tuple[str, str]]:
    return list(permutations(lab.topology.hosts, 2))[:12]


@SETTINGS
@given(labs())
def test_every_ev_is_a_path_and_a_destination_and_comes_back(lab: Lab) -> None:
    plan = AddressPlan(lab)
    links = set(lab.topology.links)
    for src, dst in pairs(lab):
        evs = plan.evs(src, dst)
        destinations = [plan.destination(src, dst, ev) for ev in evs]
        assert len(set(destinations)) == len(evs), "injective within a pair"
        for ev, destination in zip(evs, destinations, strict=True):
            path = plan.path(src, dst, ev)
            assert (path.nodes[0], path.nodes[-1]) == (src, dst)
            assert set(path.links) <= links
            assert plan.ev(path) == ev
            assert plan.decode(src, path.plane, destination) == path
            assert plan.decode(src, path.plane, plan.ordinary_destination(src, dst, ev)) == path
            assert 0 < len(path.usids) <= 6
            assert 0 not in path.usids
            assert ORDINARY not in path.usids
            assert all(usid < 0xE000 for usid in path.usids[:-1]), "uNs are global"


@SETTINGS
@given(labs())
def test_evs_are_all_the_paths_there_are(lab: Lab) -> None:
    """Counted anew from the list of links, without the plan's arithmetic."""
    plan, topology = AddressPlan(lab), lab.topology
    beside: dict[str, set[str]] = {node: set() for node in topology.nodes}
    for link in topology.links:
        beside[link.a.node].add(link.b.node)
        beside[link.b.node].add(link.a.node)
    for src, dst in pairs(lab):
        found: set[tuple[str, ...]] = set()
        for t0 in beside[src]:
            if dst in beside[t0]:
                found.add((src, t0, dst))
            for t1 in beside[t0] - set(topology.hosts):
                found |= {(src, t0, t1, far, dst) for far in beside[t1] & beside[dst] if far != t0}
        assert {plan.path(src, dst, ev).nodes for ev in plan.evs(src, dst)} == found


@SETTINGS
@given(labs())
def test_hops_follow_the_links_and_shift_the_list(lab: Lab) -> None:
    plan = AddressPlan(lab)
    low = (1 << 96) - 1
    for src, dst in pairs(lab):
        for ev in plan.evs(src, dst):
            path, hops = plan.path(src, dst, ev), plan.hops(src, dst, ev)
            assert tuple(link for link, _ in hops) == path.links
            assert hops[0][1] == plan.destination(src, dst, ev)
            for (_, before), (_, after) in pairwise(hops):
                assert int(after) & low == int(before) << 16 & low, "a switch shifts one uSID out"
                assert after in plan.block
            for node, (link, seen) in zip(path.nodes[1:-1], hops, strict=False):
                assert node in (link.a.node, link.b.node)
                assert seen in plan.sid(node), "each switch is met with its own uSID first"


@SETTINGS
@given(labs(adopted=False))
def test_the_plane_stands_in_every_generated_usid(lab: Lab) -> None:
    plan = AddressPlan(lab)
    for src, dst in pairs(lab):
        for ev in plan.evs(src, dst):
            assert {usid >> 9 & 7 for usid in plan.path(src, dst, ev).usids} == {ev & 7}


@SETTINGS
@given(labs())
def test_the_table_holds_the_same_destinations(lab: Lab) -> None:
    plan = AddressPlan(lab)
    for src, dst in pairs(lab):
        evs = plan.evs(src, dst)
        table = plan.destination_table(src, dst, evs[::-1])
        assert [row.tobytes() for row in table] == [plan.destination(src, dst, ev).packed for ev in evs[::-1]]


@SETTINGS
@given(labs())
def test_every_round_trip_comes_home_over_its_turning_point(lab: Lab) -> None:
    plan, topology = AddressPlan(lab), lab.topology
    for host in topology.hosts:
        for port in topology.ports(host):
            link = topology.link_of(port)
            own = topology.peer(port).node
            turns = [[own]]
            t1s = [topology.peer(up).node for up in topology.ports(own) if up.name.startswith("t1")]
            turns += [[t1] for t1 in t1s]
            turns += [
                [t1, topology.peer(p).node] for t1 in t1s for p in topology.ports(t1) if topology.peer(p).node != own
            ]
            for via in turns:
                path = plan.decode(host, link.plane, plan.round_trip(host, link.plane, via))
                assert path.nodes == path.nodes[::-1]
                assert path.nodes[len(path.nodes) // 2] == via[-1]
                assert path.links[0] == path.links[-1] == link
                assert len(path.usids) <= 6


@SETTINGS
@given(labs(), st.data())
def test_decode_gives_the_path_or_a_lab_error_and_never_a_wrong_address(lab: Lab, data: st.DataObject) -> None:
    """Any list of uSIDs: what decodes steers back along the same list; the rest is dropped somewhere."""
    plan = AddressPlan(lab)
    topology = lab.topology
    host = data.draw(st.sampled_from([host for host in topology.hosts if topology.ports(host)]))
    plane = topology.link_of(data.draw(st.sampled_from(topology.ports(host)))).plane
    known = [plan.usid(switch) for switch in topology.switches]
    known += [plan.usid(str(port)) for node in topology.hosts for port in topology.ports(node)]
    own = plan.usid(topology.peer(next(p for p in topology.ports(host) if p.name == f"p{plane}")).node)
    words = [own, *data.draw(st.lists(st.sampled_from([*known, 0, ORDINARY]) | st.integers(0, 0xFFFF), max_size=5))]
    value = int(plan.block.network_address) | sum(word << 80 - 16 * at for at, word in enumerate(words))
    address = type(plan.block.network_address)(value)
    try:
        path = plan.decode(host, plane, address)
    except LabError:
        return
    used = list(path.usids)
    assert words[: len(used)] == used
    assert [word for word in words[len(used) :] if word] in ([], [ORDINARY])
    assert len(path.links) == len(path.nodes) - 1 == len(used)
    assert set(path.links) <= set(topology.links)
