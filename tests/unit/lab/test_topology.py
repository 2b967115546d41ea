"""Names, counts and cabling of a fabric, checked against the rule in words."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from testbed.errors import LabError
from testbed.lab import Lab, Link, Port, Tier, Topology


def lab(planes: int = 2, t0: int = 2, t1: int = 2, hosts: int = 2, absent: str = "") -> Lab:
    counts = f"planes: {planes}\nt0_per_plane: {t0}\nt1_per_plane: {t1}\nhosts_per_t0: {hosts}\n"
    return Lab.parse(f"name: x\n{counts}absent: [{absent}]\n")


@pytest.mark.parametrize(
    ("name", "nodes", "links"),
    [
        ("laptop", 36, 64),
        ("voice", 43, 72),
        ("reference", 80, 256),
        ("large", 512, 5120),
        ("paper-a", 20, 32),
        ("paper-b", 36, 64),
        ("paper-c", 32, 64),
        ("paper-d", 24, 32),
    ],
)
def test_shipped_labs_are_as_large_as_they_say(name: str, nodes: int, links: int) -> None:
    topology = Lab.load(name).topology
    assert (len(topology.nodes), len(topology.links)) == (nodes, links)
    assert len(set(topology.nodes)) == nodes
    assert len({link.name for link in topology.links}) == links


def test_names_and_cabling_of_a_small_fabric() -> None:
    topology = lab().topology
    assert topology.hosts == ("h0", "h1", "h2", "h3")
    assert topology.t0s == ("p0-t0-0", "p0-t0-1", "p1-t0-0", "p1-t0-1")
    assert topology.t1s == ("p0-t1-0", "p0-t1-1", "p1-t1-0", "p1-t1-1")
    assert topology.nodes == topology.hosts + topology.t0s + topology.t1s
    assert topology.link("h3:p1~p1-t0-1") == Link("h3:p1~p1-t0-1", Port("h3", "p1"), Port("p1-t0-1", "d1"), 1)
    assert topology.link("p1-t0-0~p1-t1-1") == Link(
        "p1-t0-0~p1-t1-1", Port("p1-t0-0", "t1-1"), Port("p1-t1-1", "t0-0"), 1
    )
    assert [str(port) for port in topology.ports("p0-t0-1")] == [
        "p0-t0-1:d0",
        "p0-t0-1:d1",
        "p0-t0-1:t1-0",
        "p0-t0-1:t1-1",
    ]


def test_every_port_has_one_peer_and_planes_share_no_switch() -> None:
    topology = lab(3, 4, 2, 3).topology
    ports = [port for node in topology.nodes for port in topology.ports(node)]
    assert Counter(ports) == Counter(end for link in topology.links for end in (link.a, link.b))
    for port in ports:
        assert topology.peer(topology.peer(port)) == port
        assert topology.link_of(port) is topology.link_of(topology.peer(port))
    for link in topology.links:
        assert topology.plane_of(link.b.node) == link.plane
        assert topology.plane_of(link.a.node) in (None, link.plane)
        assert (topology.tier(link.a.node), topology.tier(link.b.node)) in [(Tier.HOST, Tier.T0), (Tier.T0, Tier.T1)]


def test_interface_names_fit_linux_at_full_size() -> None:
    shape = lab(8, 512, 256, 256).shape
    names = {*vars_of(shape.uplink(7, 511, 255)), *vars_of(shape.access(7, 131071))}
    assert names == {"t1-255", "t0-511", "p7", "d255"}


def vars_of(link: Link) -> tuple[str, str]:
    return link.a.name, link.b.name


@pytest.mark.parametrize(
    ("absent", "gone_nodes", "gone_links"),
    [
        ("p1", {"p1-t0-0", "p1-t0-1", "p1-t1-0", "p1-t1-1"}, 8),
        ("p0-t1-1", {"p0-t1-1"}, 2),
        ("p0-t0-0", {"p0-t0-0"}, 4),
        ("h3", {"h3"}, 2),
        ("'h2:p1'", set(), 1),
        ("h2:p1~p1-t0-1", set(), 1),
        ("p0-t0-0~p0-t1-0", set(), 1),
        ("p0-t0-0:t1-0", set(), 1),
        ("p0-t1-0:t0-0", set(), 1),
        ("p1-t0-1:d0", set(), 1),
        ("h3, h3, 'h3:p0'", {"h3"}, 2),
    ],
)
def test_what_is_absent_takes_its_links_along(absent: str, gone_nodes: set[str], gone_links: int) -> None:
    whole, part = lab().topology, lab(absent=absent).topology
    assert set(whole.nodes) - set(part.nodes) == gone_nodes
    assert len(whole.links) - len(part.links) == gone_links
    assert all(link.a.node in part.nodes and link.b.node in part.nodes for link in part.links)
    assert set(part.links) < set(whole.links)
    for node in part.nodes:
        assert set(part.ports(node)) <= set(whole.ports(node))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("h2:p1~p1-t0-0", "h2:p1~p1-t0-1"),
        ("p0-t1-0~p0-t0-1", "p0-t0-1~p0-t1-0"),
        ("p1-t0-0~p0-t1-1", "p1-t0-0~p1-t1-1"),
        ("h9:p7~p7-t0-4", "h3:p1~p1-t0-1"),
        ("p0-t0-1~h3:p0", "h3:p0~p0-t0-1"),
        ("h3~p1", "h3:p1~p1-t0-1"),
        ("h3:p1", "h3:p1~p1-t0-1"),
        ("h3", "h3:p0~p0-t0-1"),
        ("p1-t0-1", "h2:p1~p1-t0-1"),
        ("p1-t1-1", "p1-t0-0~p1-t1-1"),
    ],
)
def test_a_wrong_link_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(LabError) as caught:
        lab().topology.link(name)
    assert caught.value.nearest == near
    assert "h0:p0~p0-t0-0 or p0-t0-0~p0-t1-0" in caught.value.expected
    lab().topology.link(near)


def test_a_name_is_never_its_own_nearest() -> None:
    with pytest.raises(LabError) as caught:
        lab().topology.tier("p0-t0-0~p0-t1-0")
    assert caught.value.nearest == ""


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("p0t0-1", "p0-t0-1"),
        ("P0-T1-1", "p0-t1-1"),
        ("p0-t0-01", "p0-t0-1"),
        ("p9-t1-7", "p1-t1-1"),
        ("host3", "h3"),
        ("h03", "h3"),
    ],
)
def test_a_wrong_node_is_answered_with_the_nearest(name: str, near: str) -> None:
    for ask in (lab().topology.ports, lab().topology.tier, lab().topology.plane_of):
        with pytest.raises(LabError) as caught:
            ask(name)
        assert caught.value.nearest == near


def test_asking_for_something_absent_says_so() -> None:
    topology = lab(absent="p1-t1-0").topology
    with pytest.raises(LabError, match="left out"):
        topology.ports("p1-t1-0")
    with pytest.raises(LabError, match="left out"):
        topology.link("p1-t0-0~p1-t1-0")
    with pytest.raises(LabError, match="no port"):
        topology.peer(Port("p1-t0-0", "t1-0"))


def test_a_large_topology_is_built_fast() -> None:
    shape = Lab.load("large").shape

    def build() -> float:
        began = time.process_time()
        topology = Topology(shape)
        assert len(topology.ports("p7-t1-15")) == 32
        assert topology.link("h127:p7~p7-t0-31").plane == 7
        assert topology.peer(Port("h0", "p0")) == Port("p0-t0-0", "d0")
        return time.process_time() - began

    assert min(build() for _ in range(5)) < 0.050, "512 nodes and 5120 links in 50 ms"
