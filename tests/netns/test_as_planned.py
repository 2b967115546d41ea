"""What is built is what was planned, and whatever deviates is found, by node and entry."""

from __future__ import annotations

import pytest

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.lab import Lab
from testbed.traffic.workloads import Traffic
from tests.netns.conftest import TINY, BringUp
from tests.netns.waiting import wait_until

SHAPED = TINY + "link: {rate: 1 Gbit/s}\ntime_scale: 10\n"

OTHER_LENGTHS = "encap seg6local action End flavors next-csid lblen 48 nflen 16 dev sid0"

#: What is done to a node, and the lines that `check` must then have; {…} are uSIDs and addresses of the plan.
DEVIATIONS = {
    "route deleted": (
        "h0",
        "ip -6 route del 5f00:0:{p0-t0-0}::/48",
        ["missing route 5f00:0:{p0-t0-0}::/48 via fe80::1 dev p0"],
    ),
    "wrong next hop": (
        "p0-t0-0",
        "ip -6 route replace 5f00:0:{p0-t1-0}::/48 via fe80::1 dev t1-1",
        [
            "missing route 5f00:0:{p0-t1-0}::/48 via fe80::1 dev t1-0",
            "unexpected route 5f00:0:{p0-t1-0}::/48 via fe80::1 dev t1-1",
        ],
    ),
    "extra route": (
        "p0-t1-0",
        "ip -6 route add 5f00:0:dead::/48 via fe80::1 dev t0-0",
        ["unexpected route 5f00:0:dead::/48 via fe80::1 dev t0-0"],
    ),
    "more specific route": (
        "p0-t1-0",
        "ip -6 route add blackhole 5f00:0:{p0-t0-0}:8000::/50",
        ["unexpected route 5f00:0:{p0-t0-0}:8000::/50"],
    ),
    "default route": (
        "h1",
        "ip -6 route add default via fe80::1 dev p0",
        ["unexpected route ::/0 via fe80::1 dev p0"],
    ),
    "neighbour changed": (
        "h0",
        "ip -6 neigh replace fe80::1 lladdr 02:00:00:00:00:99 nud permanent dev p1",
        ["missing neighbour fe80::1 dev p1", "unexpected neighbour fe80::1 dev p1 lladdr 02:00:00:00:00:99"],
    ),
    "neighbour gone": ("p1-t1-1", "ip -6 neigh del fe80::1 dev t0-1", ["missing neighbour fe80::1 dev t0-1"]),
    "MTU": (
        "p1-t0-1",
        "ip link set d0 mtu 1500",
        ["missing link d0 mtu 9000 up", "unexpected link d0 mtu 1500 up"],
    ),
    "link down": (
        "p1-t0-0",
        "ip link set t1-1 down",
        ["unexpected link t1-1 mtu 9000 down", "missing neighbour fe80::1 dev t1-1"],
    ),
    "extra link": (
        "h0",
        "ip link add extra0 type veth peer name extra1",
        ["unexpected link extra0", "unexpected link extra1"],
    ),
    "address missing": ("h1", "ip -6 addr del {h1}/128 dev lo", ["missing address {h1}/128 dev lo"]),
    "extra address": (
        "h1",
        "ip -6 addr add fd00::99/128 dev p0 nodad",
        ["unexpected address fd00::99/128 dev p0"],
    ),
    "shift without its flavour": (
        "p1-t1-0",
        "ip -6 route replace 5f00:0:{p1-t1-0}::/48 encap seg6local action End count dev sid0",
        [
            "missing route 5f00:0:{p1-t1-0}::/48 seg6local End next-csid dev sid0",
            "unexpected route 5f00:0:{p1-t1-0}::/48 seg6local End count dev sid0",
        ],
    ),
    "shift of other lengths": (
        "p0-t1-1",
        "ip -6 route replace 5f00:0:{p0-t1-1}::/48 " + OTHER_LENGTHS,
        [
            "missing route 5f00:0:{p0-t1-1}::/48 seg6local End next-csid dev sid0",
            "unexpected route 5f00:0:{p0-t1-1}::/48 of another kind dev sid0",
        ],
    ),
    "catch-all gone": (
        "p0-t0-1",
        "ip -6 route del 5f00::/32",
        ["missing route 5f00::/32 seg6local End count dev sid0"],
    ),
    "rate changed": (
        "p0-t0-0",
        "tc qdisc change dev t1-0 root tbf rate 50mbit burst 20000 limit 144000",
        ["missing qdisc tbf dev t1-0 rate 12500000", "unexpected qdisc tbf dev t1-0 rate 6250000"],
    ),
    "shaper removed": ("p0-t0-0", "tc qdisc del dev d0 root", ["missing qdisc tbf dev d0 rate 12500000"]),
    "filter hook": ("h0", "tc qdisc add dev p0 clsact", ["unexpected qdisc clsact dev p0"]),
}


@pytest.mark.parametrize("name", ["laptop", "reference"])
def test_a_shipped_lab_comes_up_as_planned(up: BringUp, name: str) -> None:
    fabric = up(Lab.load(name))
    assert fabric.check() == []
    assert fabric.client.facts["rootless"] in (True, False)


def test_every_deviation_is_found(up: BringUp) -> None:
    """All of them planted into one fabric, one after the other: each shows, by node and entry, beside the others."""
    fabric = up(SHAPED)
    fill = {name: f"{fabric.addresses.usid(name):x}" for name in fabric.lab.topology.switches}
    fill |= {name: str(fabric.addresses.nic_address(name)) for name in fabric.lab.topology.hosts}
    before: set[str] = set()
    for what, (node, command, expected) in DEVIATIONS.items():
        fabric.node(node).run(command.format_map(fill).split())
        found = set(fabric.check())
        new = found - before
        for line in expected:
            wanted = f"{node}: {line.format_map(fill)}"
            assert any(got.startswith(wanted) for got in new), f"{what}: no {wanted!r} in {sorted(new)}"
        assert before <= found, what
        before = found


def test_a_link_down_shows_at_its_other_end_too(tiny: NetnsFabric) -> None:
    link = tiny.link("p0-t0-0~p0-t1-1")
    tiny.set_link(link, up=False)
    # The other end learns it a little later.
    wait_until(lambda: any("p0-t0-0: unexpected link t1-1" in line for line in tiny.check()), "no carrier")
    wrong = tiny.check()
    tiny.set_link(link, up=True)
    assert any(line.startswith("p0-t0-0: unexpected link t1-1") and line.endswith("no carrier") for line in wrong)
    assert {line.split(":")[0] for line in wrong} == {"p0-t0-0", "p0-t1-1"}


IRREGULAR = {
    "a plane": "absent: [p1]",
    "switches": "absent: [p0-t1-0, p2-t1-1]",
    "a T0": "absent: [p2-t0-1]",
    "hosts and ports": "absent: [h1, 'h0:p2', 'h3:p0']",
    "links": "absent: ['p0-t0-0~p0-t1-1', 'p1-t0-1~p1-t1-0', 'h2:p2~p2-t0-1']",
    "of everything": "absent: [p1, p0-t1-1, h3, 'h0:p2', 'p2-t0-0~p2-t1-0']",
}


@pytest.mark.parametrize("absent", IRREGULAR.values(), ids=IRREGULAR)
def test_an_irregular_fabric_delivers_over_every_path_it_has(up: BringUp, absent: str) -> None:
    whole = "name: odd\nplanes: 3\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 2\n"
    fabric = up(whole + absent)
    assert fabric.check() == []
    flows = Traffic(fabric).probes("all")
    paths = sum(len(evs) for evs in flows.evs.values())
    assert 0 < paths < 12 * 3 * 2
    with flows.running():
        flows.wait_rounds(1)
    samples = flows.outcome.samples
    assert len(samples.arrivals) == len(samples.sent) >= paths
    assert {(int(row["flow"]), int(row["ev"])) for row in samples.arrivals} == set(flows.path_of)
