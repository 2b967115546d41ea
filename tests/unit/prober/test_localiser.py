"""The localiser against faults whose truth is known: simulated probes of whole fabrics, seeds fixed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.lab import Lab, Tier
from testbed.localise.elements import Element, Kind
from testbed.localise.routes import OUTCOME, Status
from testbed.localise.suspects import Change, FaultClass, What
from tests.unit.prober.simulation import WAITING_NS, Simulation, Truth
from tests.unit.test_addressing_properties import labs

REFERENCE, LAPTOP = Lab.load("reference"), Lab.load("laptop")
WAITING_S = WAITING_NS * 1e-9
HARD = 1.0
PERCENT = 0.01


def draw(lab: Lab, rng: np.random.Generator, kind: Kind) -> Element:
    link = lab.topology.links[rng.integers(len(lab.topology.links))]
    if kind is Kind.LINK:
        return Element(Kind.LINK, link.name)
    if kind is Kind.DIRECTION:
        ends = rng.permutation([link.a.node, link.b.node])
        return Element(Kind.DIRECTION, link.name, str(ends[0]), str(ends[1]))
    if kind is Kind.SWITCH:
        return Element(Kind.SWITCH, str(rng.choice(lab.topology.switches)))
    return Element(Kind.HOST, str(rng.choice(lab.topology.hosts)))


def found(simulation: Simulation) -> set[Element]:
    return {suspect.element for suspect in simulation.localiser.suspects}


def hard_s(simulation: Simulation) -> float:
    """Three cycles and the waiting time, to the next judgement."""
    return 3 * simulation.schedule.cycle_ns * 1e-9 + WAITING_S + 0.1


@dataclass
class Tally:
    """What one class of faults came to; ``wrong``: accusations of something else, most of them soon withdrawn."""

    rounds: int = 0
    right: int = 0
    wrong: int = 0
    times: list[float] | None = None

    def add(self, right: bool, said: list[Change], truth: set[Element], began: float) -> None:
        accused = [change for change in said if change.what is What.ACCUSED]
        self.rounds += 1
        self.right += right
        self.wrong += sum(change.suspect.element not in truth for change in accused)
        hits = [change.t_ns * 1e-9 + WAITING_S - began for change in accused if change.suspect.element in truth]
        self.times = [*(self.times or []), *hits[-1:]]

    def __str__(self) -> str:
        times = np.array(self.times or [np.nan])
        return (
            f"{self.right} of {self.rounds} ({self.right / self.rounds:.1%}), {self.wrong} accused wrongly meanwhile; "
            f"named after {np.median(times):.2f} s, at most {times.max():.2f} s"
        )


@pytest.mark.parametrize("kind", [Kind.DIRECTION, Kind.LINK, Kind.SWITCH, Kind.HOST])
def test_hard_faults_are_all_named_within_three_cycles(kind: Kind) -> None:
    tally = Tally()
    for seed in range(10):
        rng = np.random.default_rng(seed)
        simulation = Simulation(REFERENCE, rng)
        assert simulation.run(0.5 + rng.random()) == []
        element, began = draw(REFERENCE, rng, kind), simulation.now * 1e-9
        said = simulation.run(hard_s(simulation), [Truth(element, HARD)])
        suspects = simulation.localiser.suspects
        right = [(suspect.element, suspect.fault) for suspect in suspects] == [(element, FaultClass.BLACK_HOLE)]
        tally.add(right, said, {element}, began)
    print(f"black hole, {kind}: {tally}")
    assert tally.right == tally.rounds


@pytest.mark.parametrize("kind", [Kind.DIRECTION, Kind.LINK, Kind.SWITCH])
def test_losses_of_one_percent_are_named_within_ten_seconds(kind: Kind) -> None:
    """Of the directions of NIC–T0 links 2% are not lossy in any way that shows: none of some 400 probes is lost."""
    tally, covered = Tally(), 0
    for seed in range(100, 106):
        rng = np.random.default_rng(seed)
        simulation = Simulation(REFERENCE, rng)
        simulation.run(0.5)
        element, began = draw(REFERENCE, rng, kind), simulation.now * 1e-9
        said = simulation.run(10.0, [Truth(element, PERCENT)])
        suspects = simulation.localiser.suspects
        right = [(suspect.element, suspect.fault) for suspect in suspects] == [(element, FaultClass.PARTIAL)]
        tally.add(right, said, {element}, began)
        covered += sum(suspect.rate_lo <= PERCENT <= suspect.rate_hi for suspect in suspects)
    print(f"1% lost, {kind}: {tally}; the interval holds the rate in {covered}")
    assert tally.right == tally.rounds
    assert covered >= 0.75 * tally.rounds


@pytest.mark.parametrize(("tier", "least"), [(Tier.HOST, 0.955), (Tier.T0, 0.985)])
def test_what_is_named_of_losses_of_one_percent_is_near_what_can_be(tier: Tier, least: float) -> None:
    """When the first probe is lost nobody can hasten: that takes an exponential time. What follows is simulated.

    So each run stands for all the times at which the first could have been lost, and some tens of them tell as much as
    thousands of whole runs. What follows from the least time that there is, the waiting time twice and two judgements,
    is the bound; see `docs/prober.md`.
    """
    found, crossings = [], 0.0
    for seed in range(400, 424):
        rng = np.random.default_rng(seed)
        simulation = Simulation(REFERENCE, rng)
        simulation.run(0.3)
        links = [link for link in REFERENCE.topology.links if REFERENCE.topology.tier(link.a.node) is tier]
        link = links[rng.integers(len(links))]
        ends = rng.permutation([link.a.node, link.b.node])
        element = Element(Kind.DIRECTION, link.name, str(ends[0]), str(ends[1]))
        every = [number for host in simulation.schedule.turns for turn in host for number in turn]
        crossings += simulation.crossings(element)[every].sum() / simulation.schedule.cycle_ns * 1e9 / 24
        simulation.lose_next(element)
        began = simulation.now
        while {suspect.element for suspect in simulation.localiser.suspects} != {element}:
            simulation.run(0.1, [Truth(element, PERCENT)])
            assert simulation.now < began + 5_000_000_000, f"seed {seed}: {element} is not named"
        found.append((simulation.now - began) * 1e-9)
    per_s = -np.log1p(-PERCENT) * crossings
    named, bound = (
        float(np.mean(1 - np.exp(-per_s * (10.0 - np.array(times))))) for times in (found, [2 * WAITING_S + 0.2])
    )
    print(
        f"{crossings:.0f} probes/s cross a direction; from the first loss {np.median(found):.2f} s, at most "
        f"{max(found):.2f} s; named within 10 s: {named:.1%}, of at most {bound:.1%}"
    )
    assert named >= least
    assert named >= bound - 0.015


def test_two_hard_faults_at_once_are_both_named() -> None:
    tally = Tally()
    kinds = [Kind.DIRECTION, Kind.LINK, Kind.SWITCH]
    for seed in range(200, 214):
        rng = np.random.default_rng(seed)
        simulation = Simulation(REFERENCE, rng)
        simulation.run(0.5)
        pair = {draw(REFERENCE, rng, kinds[rng.integers(3)]) for _ in range(2)}
        crossed = [simulation.crossings(element) > 0 for element in pair]
        if len(pair) < 2 or any((a <= b).all() for a in crossed for b in crossed if a is not b):
            continue  # All that one carries passes the other: no probe can tell.
        began = simulation.now * 1e-9
        said = simulation.run(hard_s(simulation), [Truth(element, HARD) for element in pair])
        tally.add(found(simulation) == pair, said, pair, began)
    print(f"two black holes: {tally}")
    assert tally.rounds >= 10
    assert tally.right >= 0.95 * tally.rounds


def test_t0_good_and_t1_bad_is_the_link_between_them() -> None:
    simulation = Simulation(LAPTOP, np.random.default_rng(1))
    simulation.run(2.0, [Truth(Element(Kind.LINK, "p3-t0-1~p3-t1-0"), HARD)])
    (suspect,) = simulation.localiser.suspects
    assert str(suspect.element) == "p3-t0-1~p3-t1-0"
    assert suspect.fault is FaultClass.BLACK_HOLE
    assert suspect.crosses(("h0", "p3-t0-0", "p3-t1-0", "p3-t0-1", "h2"), ("a", "b", "p3-t0-1~p3-t1-0", "c"))
    assert not suspect.crosses(("h0", "p3-t0-0", "p3-t1-1", "p3-t0-1", "h2"), ("a", "b", "p3-t0-1~p3-t1-1", "c"))


def test_two_healthy_minutes_accuse_nobody_though_single_probes_are_lost() -> None:
    """Ten on a real fabric: `make soak SOAK=prober`."""
    simulation = Simulation(LAPTOP, np.random.default_rng(2))
    stray = [Truth(Element(Kind.LINK, link.name), 3e-6) for link in LAPTOP.topology.links]
    said = simulation.run(120.0, stray)
    assert said == []
    assert simulation.sent > 590_000


def test_what_comes_and_goes_is_accused_and_cleared_each_time() -> None:
    simulation = Simulation(LAPTOP, np.random.default_rng(3), healthy_s=1.0)
    element = Element(Kind.DIRECTION, "h1:p2~p2-t0-0", "h1", "p2-t0-0")
    said = []
    for _ in range(3):
        said += simulation.run(1.0, [Truth(element, HARD)])
        said += simulation.run(3.0)
    assert [change.what for change in said] == [What.ACCUSED, What.CLEARED] * 3
    assert {change.suspect.element for change in said} == {element}
    began = [change.suspect.since_ns * 1e-9 for change in said if change.what is What.ACCUSED]
    assert began == pytest.approx([0.0, 4.0, 8.0], abs=0.1)


def test_a_loss_that_becomes_a_black_hole_is_said_so() -> None:
    simulation = Simulation(LAPTOP, np.random.default_rng(4))
    element = Element(Kind.SWITCH, "p0-t1-1")
    simulation.run(3.0, [Truth(element, 0.1)])
    assert [suspect.fault for suspect in simulation.localiser.suspects] == [FaultClass.PARTIAL]
    said = simulation.run(15.0, [Truth(element, HARD)])
    assert [(change.what, change.suspect.fault) for change in said] == [(What.REVISED, FaultClass.BLACK_HOLE)]


def test_losses_that_may_be_the_machines_own_accuse_nobody() -> None:
    """The same black hole, but for each lost probe the machine was dropping packets at the time."""
    simulation = Simulation(LAPTOP, np.random.default_rng(5))
    whole = simulation.localiser.add

    def unknown(rows: np.ndarray, horizon_ns: int) -> None:
        rows["status"][rows["status"] == Status.LOST] = Status.UNKNOWN
        whole(rows, horizon_ns)

    simulation.localiser.add = unknown  # type: ignore[method-assign]
    assert simulation.run(3.0, [Truth(Element(Kind.SWITCH, "p3-t1-0"), HARD)]) == []


def test_losses_everywhere_alike_accuse_nobody() -> None:
    simulation = Simulation(LAPTOP, np.random.default_rng(6))
    everywhere = [Truth(Element(Kind.LINK, link.name), 0.01) for link in LAPTOP.topology.links]
    assert simulation.run(5.0, everywhere) == []


def test_probes_that_come_late_take_the_accusation_back() -> None:
    simulation = Simulation(LAPTOP, np.random.default_rng(7), healthy_s=0.5)
    element = Element(Kind.DIRECTION, "h1:p2~p2-t0-0", "h1", "p2-t0-0")
    lost: list[np.ndarray] = []
    add = simulation.localiser.add

    def remember(rows: np.ndarray, horizon_ns: int) -> None:
        lost.append(rows[rows["status"] == Status.LOST].copy())
        add(rows, horizon_ns)

    simulation.localiser.add = remember  # type: ignore[method-assign]
    simulation.run(1.0, [Truth(element, HARD)])
    assert found(simulation) == {element}
    late = np.concatenate(lost)
    late["status"], late["delay_ns"] = Status.LATE, 400_000_000
    add(late, simulation.now - WAITING_NS)
    said = simulation.run(10.0)
    assert What.CLEARED in {change.what for change in said}
    assert found(simulation) == set()


@pytest.mark.parametrize("kind", [Kind.DIRECTION, Kind.LINK, Kind.SWITCH])
def test_delays_are_named(kind: Kind) -> None:
    tally = Tally()
    for seed in range(300, 304):
        rng = np.random.default_rng(seed)
        simulation = Simulation(LAPTOP, rng)
        simulation.run(1.0)
        element, began = draw(LAPTOP, rng, kind), simulation.now * 1e-9
        said = simulation.run(5.0, [Truth(element, 0.0, delay=0.005)])
        suspects = simulation.localiser.suspects
        right = [(suspect.element, suspect.fault) for suspect in suspects] == [(element, FaultClass.DELAY)]
        tally.add(right, said, {element}, began)
        if right:
            assert 0.004 < suspects[0].delay_s < 0.011
    print(f"5 ms of delay, {kind}: {tally}")
    assert tally.right == tally.rounds


def test_a_busy_machine_that_delays_whole_turns_of_hosts_is_no_delay_of_a_host() -> None:
    """A third of the turns, each as a whole, and by chance those of one host for seconds."""
    simulation = Simulation(REFERENCE, np.random.default_rng(10))
    slot_ns = simulation.schedule.period_ns / len(simulation.schedule.turns)
    add = simulation.localiser.add
    chance = np.random.default_rng(11)

    def held_up(rows: np.ndarray, horizon_ns: int) -> None:
        turns, of = np.unique(rows["t_ns"], return_inverse=True)
        host = np.round(turns / slot_ns).astype(np.int64) % len(simulation.schedule.turns)
        slow = (chance.random(len(turns)) < 0.33) | ((host == 5) & (chance.random(len(turns)) < 0.6))
        rows["delay_ns"] += np.where(slow[of], 10_000_000, 0)
        add(rows, horizon_ns)

    simulation.localiser.add = held_up  # type: ignore[method-assign]
    assert simulation.run(60.0) == []


def test_a_busy_machine_that_delays_all_probes_at_times_is_no_delay_of_a_link() -> None:
    simulation = Simulation(LAPTOP, np.random.default_rng(8))
    add = simulation.localiser.add

    def stalled(rows: np.ndarray, horizon_ns: int) -> None:
        # Every 300 ms nothing runs for 60 ms: what was sent then comes home afterwards.
        into = rows["t_ns"] % 300_000_000
        rows["delay_ns"] += np.where(into < 60_000_000, 60_000_000 - into, 0)
        add(rows, horizon_ns)

    simulation.localiser.add = stalled  # type: ignore[method-assign]
    assert simulation.run(20.0) == []


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(labs(adopted=False), st.integers(0, 2**32 - 1))
def test_on_any_fabric_a_black_hole_is_named_as_far_as_it_can_be_told(lab: Lab, seed: int) -> None:
    if not any(lab.topology.tier(link.a.node) == "host" for link in lab.topology.links):
        return
    rng = np.random.default_rng(seed)
    simulation = Simulation(lab, rng)
    elements = simulation.localiser.elements
    column = int(rng.integers(len(elements) - 1))
    simulation.run(0.3)
    simulation.run(max(hard_s(simulation), 1.0), [Truth(elements.groups[column][0], HARD)])
    (suspect,) = simulation.localiser.suspects
    told = {element for twin in elements.twins[column] for element in elements.groups[twin]}
    assert {suspect.element, *suspect.instead} == told


def test_each_probe_counts_once() -> None:
    simulation = Simulation(LAPTOP, np.random.default_rng(9))
    window = simulation.localiser._window
    rows = np.zeros(40, OUTCOME)
    rows["route"], rows["seq"], rows["t_ns"] = np.arange(40) % 4, np.arange(40), np.arange(40) * 10
    rows["status"][::8] = Status.LOST
    for part in np.array_split(rows[::-1], 5):
        window.add(part, -1)
    assert len(window.add(rows[:0], 199)) == 20
    assert len(window.add(rows[:0], 1_000)) == 20
    evidence = window.lost(0)
    assert Counter(evidence.probes.tolist()) == {10.0: 4, 0.0: len(simulation.routes) - 4}
    assert evidence.hit.sum() == 5
