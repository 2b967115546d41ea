"""The order of EVs and the merge of flows, as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.traffic.probes.plan import SendFlow
from testbed.traffic.probes.schedule import Rounds, Schedule


def flow(number: int, rate: float, *, evs: int = 4, count: int = 0) -> SendFlow:
    return SendFlow(number, 0, "fd00::1", tuple(range(evs)), (0,) * evs, "00" * 16 * evs, rate, count=count)


@given(
    planes=st.lists(st.integers(0, 7), min_size=1, max_size=40),
    seed=st.integers(0, 2**32),
    flow_number=st.integers(0, 99),
)
def test_each_round_visits_each_ev_once(planes: list[int], seed: int, flow_number: int) -> None:
    rounds = Rounds(planes, seed, flow_number).take(3 * len(planes)).reshape(3, -1)
    assert (np.sort(rounds, axis=1) == np.arange(len(planes))).all()


@given(planes=st.integers(1, 8), per_plane=st.integers(1, 16), seed=st.integers(0, 1000))
def test_every_group_of_a_round_holds_each_plane_once(planes: int, per_plane: int, seed: int) -> None:
    of_ev = np.repeat(np.arange(planes), per_plane)
    visited = of_ev[Rounds(of_ev.tolist(), seed, 0).take(5 * len(of_ev))].reshape(-1, planes)
    assert (np.sort(visited, axis=1) == np.arange(planes)).all()


def test_the_order_depends_on_seed_and_flow_but_not_on_how_it_is_taken() -> None:
    planes = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    whole = Rounds(planes, 5, 1).take(3000)
    pieces = Rounds(planes, 5, 1)
    assert np.concatenate([pieces.take(count) for count in (1, 0, 999, 1500, 500)]).tolist() == whole.tolist()
    assert Rounds(planes, 6, 1).take(3000).tolist() != whole.tolist()
    assert Rounds(planes, 5, 2).take(3000).tolist() != whole.tolist()
    # Rounds differ from one another: a fixed order would hide a fault that follows it.
    assert len({tuple(order) for order in whole[:900].reshape(-1, 9).tolist()}) > 50


@given(
    rates=st.lists(st.floats(0.5, 1e6), min_size=1, max_size=6),
    takes=st.lists(st.integers(1, 700), min_size=1, max_size=6),
)
def test_due_times_are_sorted_and_each_flow_keeps_its_rate(rates: list[float], takes: list[int]) -> None:
    schedule = Schedule([flow(number, rate) for number, rate in enumerate(rates)], seed=0)
    parts = [schedule.take(count) for count in takes]
    assert [len(part) for part in parts] == takes
    t_ns = np.concatenate([part.t_ns for part in parts])
    flows = np.concatenate([part.flow for part in parts])
    seq = np.concatenate([part.seq for part in parts])
    assert (np.diff(t_ns) >= 0).all()
    for number, rate in enumerate(rates):
        mine = flows == number
        assert seq[mine].tolist() == list(range(int(mine.sum())))
        expected = (number / len(rates) + seq[mine]) * 1e9 / rate
        assert np.abs(t_ns[mine] - expected).max(initial=0) <= 1 + 1e-6 * expected.max(initial=0)
        # Nothing of a flow is left out: its next packet is not due before the last one taken.
        assert (number / len(rates) + int(mine.sum())) * 1e9 / rate >= t_ns[-1] - 1


@pytest.mark.parametrize("rate", [0.0, 1e5])
def test_counts_end_the_flows(rate: float) -> None:
    schedule = Schedule([flow(0, rate, count=10), flow(1, rate, count=1000), flow(2, rate, count=1)], seed=0)
    due = schedule.take(5000)
    assert np.bincount(due.flow).tolist() == [10, 1000, 1]
    assert len(schedule.take(1)) == 0


def test_unpaced_flows_take_turns_and_are_always_due() -> None:
    due = Schedule([flow(0, 0), flow(1, 0), flow(2, 0)], seed=0).take(300)
    assert due.flow[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert not due.t_ns.any()
