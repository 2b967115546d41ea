"""Probes of EVs assumed bad: when they are due, and what brings an EV back."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from testbed.mrc.evs import EvSet
from testbed.mrc.rows import EvCause, EvState

At = Callable[..., npt.NDArray[np.int64]]
Make = Callable[..., EvSet]
PROBES = {"probe_interval_ns": 100, "probe_timeout_ns": 40, "probes_to_restore": 3}


@pytest.fixture
def bad(make: Make, at: At) -> EvSet:
    """An EV set whose EV 3 was retired at 1000."""
    evs = make(8, 2, **PROBES)
    assert evs.next_due_ns() is None
    evs.on_loss(at(3), 1000)
    return evs


def test_due_at_once_then_every_interval(bad: EvSet) -> None:
    assert bad.next_due_ns() == 1000
    assert bad.probes_due(999).size == 0
    assert bad.probes_due(1000).tolist() == [3]
    assert bad.probes_due(1000).size == 0, "asked twice"
    assert bad.next_due_ns() == 1040
    assert bad.probes_due(1040).size == 0
    assert bad.next_due_ns() == 1100
    assert bad.probes_due(1107).tolist() == [3]
    bad.on_probe_answer(3, 1108)
    assert bad.next_due_ns() == 1207


def test_so_many_answers_in_a_row_restore(bad: EvSet) -> None:
    for now in (1000, 1100, 1200):
        assert bad.states[3] == EvState.ASSUMED_BAD
        assert bad.probes_due(now).tolist() == [3]
        bad.on_probe_answer(3, now + 39)
    assert bad.states[3] == EvState.GOOD
    assert bad.next_due_ns() is None
    last = bad.take_events()[-1]
    assert (last["t_ns"], last["ev"], last["cause"]) == (1239, 0x101, EvCause.PROBE)


@pytest.mark.parametrize("missing", [0, 1, 2, 3, 4])
def test_a_timeout_begins_the_row_anew(bad: EvSet, missing: int) -> None:
    restored_by = None
    for probe in range(8):
        now = 1000 + 100 * probe
        bad.probes_due(now)
        if probe != missing:
            bad.on_probe_answer(3, now + 5)
        if bad.states[3] == EvState.GOOD:
            restored_by = probe
            break
    assert restored_by == (missing + 3 if missing < 3 else 2)


def test_a_late_answer_is_none(bad: EvSet) -> None:
    for now in (1000, 1100):
        bad.probes_due(now)
        bad.on_probe_answer(3, now + 1)
    bad.probes_due(1200)
    bad.on_probe_answer(3, 1240)
    assert bad.states[3] == EvState.ASSUMED_BAD
    for now in (1300, 1400):
        bad.probes_due(now)
        bad.on_probe_answer(3, now + 1)
    assert bad.states[3] == EvState.ASSUMED_BAD, "the late answer left the row standing"


def test_answers_nobody_asked_for_and_repeated_ones_do_not_count(bad: EvSet) -> None:
    for _ in range(5):
        bad.on_probe_answer(3, 1000)
    bad.probes_due(1000)
    for _ in range(5):
        bad.on_probe_answer(3, 1001)
    bad.on_probe_answer(4, 1001)
    assert bad.states[3] == EvState.ASSUMED_BAD


def test_one_probe_at_a_time_where_the_timeout_is_longer_than_the_interval(make: Make, at: At) -> None:
    evs = make(8, 2, probe_interval_ns=10, probe_timeout_ns=100)
    evs.on_loss(at(3), 0)
    assert [now for now in range(0, 250, 5) if evs.probes_due(now).size] == [0, 100, 200]


def test_each_ev_has_its_own_row(make: Make, at: At) -> None:
    evs = make(8, 2, **PROBES)
    evs.on_loss(at(3, 4), 0)
    for now in (0, 100, 200):
        assert evs.probes_due(now).tolist() == [3, 4]
        evs.on_probe_answer(4, now + 1)
    assert (evs.states[3], evs.states[4]) == (EvState.ASSUMED_BAD, EvState.GOOD)


def test_none_on_a_plane_that_is_down(bad: EvSet) -> None:
    bad.set_port(1, False, EvCause.LOCAL_PORT, 5000)
    assert bad.next_due_ns() is None
    assert bad.probes_due(6000).size == 0
    bad.set_port(1, True, EvCause.LOCAL_PORT, 7000)
    assert bad.probes_due(7000).tolist() == [3]


def test_an_outage_begins_the_row_anew_and_its_probe_counts_neither_way(bad: EvSet) -> None:
    for now in (1100, 1200):
        bad.probes_due(now)
        bad.on_probe_answer(3, now + 1)
    bad.probes_due(1300)
    bad.set_port(1, False, EvCause.LOCAL_PORT, 1301)
    bad.on_probe_answer(3, 1302)
    bad.set_port(1, True, EvCause.LOCAL_PORT, 1303)
    bad.on_probe_answer(3, 1304)
    assert bad.states[3] == EvState.ASSUMED_BAD
    for now in (1400, 1500):
        bad.probes_due(now)
        bad.on_probe_answer(3, now + 1)
    assert bad.states[3] == EvState.ASSUMED_BAD
    bad.probes_due(1600)
    bad.on_probe_answer(3, 1601)
    assert bad.states[3] == EvState.GOOD


def test_an_ev_that_turns_bad_again_begins_anew(bad: EvSet, at: At) -> None:
    for now in (1000, 1100, 1200):
        bad.probes_due(now)
        bad.on_probe_answer(3, now + 1)
    bad.on_loss(at(3), 1202)
    assert bad.probes_due(1202).tolist() == [3]
    bad.on_probe_answer(3, 1203)
    assert bad.states[3] == EvState.ASSUMED_BAD
