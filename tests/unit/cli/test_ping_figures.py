"""The statistics of ping, and where a path counts as broken."""

from __future__ import annotations

import statistics
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.addressing import AddressPlan
from testbed.fabric.netns.ping import Reply, Statistics, broken_at, legs
from testbed.lab import Lab

PLAN = AddressPlan(Lab.load("laptop"))


@given(st.lists(st.one_of(st.none(), st.integers(1, 10**9)), max_size=30))
def test_statistics_are_pings(times: list[int | None]) -> None:
    counted = Statistics()
    for number, ns in enumerate(times):
        counted.add(Reply(0, number, ns))
    came = [ns for ns in times if ns is not None]
    assert (counted.sent, counted.received) == (len(times), len(came))
    assert counted.loss == (None if not times else pytest.approx(1 - len(came) / len(times)))
    if not came:
        assert counted.mean_ns is None
        assert counted.mdev_ns is None
        return
    assert (counted.least_ns, counted.most_ns) == (min(came), max(came))
    assert counted.mean_ns == pytest.approx(statistics.fmean(came))
    assert counted.mdev_ns == pytest.approx(statistics.pstdev(came), abs=100, rel=1e-6)


def test_legs_turn_at_every_switch_and_come_back() -> None:
    for ev in PLAN.evs("h0", "h3"):
        *loops, last = legs(PLAN, "h0", "h3", ev)
        path = PLAN.path("h0", "h3", ev)
        for number, leg in enumerate(loops, 1):
            nodes = path.nodes[: number + 1]
            assert PLAN.decode("h0", path.plane, IPv6Address(leg.destination)).nodes == (*nodes, *nodes[-2::-1])
            assert leg.link == path.links[number - 1].name
        assert last.one_way
        assert last.destination == str(PLAN.destination("h0", "h3", ev))


def test_the_first_leg_that_loses_is_where_it_is_broken() -> None:
    path = legs(PLAN, "h0", "h3", 0)
    lost = [[0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]]
    assert [broken_at(path, [Statistics(sent=2, received=2 - missing) for missing in each]) for each in lost] == [
        None,
        2,
        0,
        3,
    ]
