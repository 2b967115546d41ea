"""Probes of a lab without a kernel: sent as the agent sends them, hit by faults whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from testbed.addressing import AddressPlan
from testbed.lab import Lab
from testbed.localise.elements import Element, Kind
from testbed.localise.focus import Focus, goes_to_focus
from testbed.localise.localiser import Localiser
from testbed.localise.routes import OUTCOME, OutcomeArray, Status
from testbed.localise.suspects import Change
from testbed.traffic.prober.loops import loops
from testbed.traffic.prober.schedule import schedule

WAITING_NS = 250_000_000
STEP_NS = 100_000_000
_HOP_NS, _JITTER_NS = 10_000, 20_000


@dataclass(frozen=True)
class Truth:
    """A fault: what it is on, since when (s), until when, its loss at a crossing, and the delay it adds there (s)."""

    element: Element
    rate: float
    since: float = 0.0
    until: float = float("inf")
    delay: float = 0.0


class Simulation:
    """A prober on a lab that exists in numbers only."""

    def __init__(self, lab: Lab, rng: np.random.Generator, *, rate: float = 5_000.0, healthy_s: float = 2.0) -> None:
        self.rng = rng
        hosts = lab.topology.hosts
        self.loops = loops(AddressPlan(lab), hosts)
        self.schedule = schedule(self.loops, hosts, rate)
        self.routes = [loop.route() for loop in self.loops]
        self.localiser = Localiser(
            self.routes,
            cycle_ns=self.schedule.cycle_ns,
            allowance_ns=[2_000_000] * len(self.routes),
            healthy_ns=round(healthy_s * 1e9),
            together=self.schedule.together,
        )
        self._lengths = np.array([len(route.hops) for route in self.routes])
        self._turn = 0
        self._focus = Focus()
        self._focus_at = 0
        self._seq = 0
        self.now = 0
        self.sent = 0
        self._doomed: np.ndarray | None = None

    def lose_next(self, element: Element) -> None:
        """The next probe that crosses an element is lost."""
        self._doomed = self.crossings(element) > 0

    def crossings(self, element: Element) -> np.ndarray:
        """How often each route crosses an element, counted from the hops and nothing else."""
        return np.array([_crossings(element, route.hops) for route in self.routes])

    def run(self, seconds: float, faults: Sequence[Truth] = ()) -> list[Change]:
        """Probe for a while; returns what the localiser said."""
        crossed = [(fault, self.crossings(fault.element)) for fault in faults]
        said: list[Change] = []
        end = self.now + round(seconds * 1e9)
        while self.now < end:
            rows = self._sent(self.now + STEP_NS, crossed)
            self.now += STEP_NS
            self.localiser.add(rows, self.now - WAITING_NS)
            said += self.localiser.step()
            self._focus = self.localiser.focus()
        return said

    def _sent(self, until: int, crossed: Sequence[tuple[Truth, np.ndarray]]) -> OutcomeArray:
        hosts = len(self.schedule.turns)
        slot_ns = self.schedule.period_ns / hosts
        parts, times = [], []
        while self._turn * slot_ns < until:
            at = round(self._turn * slot_ns)
            focus = self._focus.routes
            if focus and goes_to_focus(self._turn, self._focus.turns):
                size = len(self.schedule.turns[0][0])
                chosen = [focus[(self._focus_at + n) % len(focus)] for n in range(size)]
                self._focus_at += size
            else:
                host = self._base % hosts
                chosen = list(self.schedule.turns[host][self._base // hosts % self.schedule.periods])
                self._base += 1
            parts.append(np.array(chosen, np.int64))
            times.append(np.full(len(chosen), at, np.int64))
            self._turn += 1
        route, t_ns = np.concatenate(parts), np.concatenate(times)
        rows = np.zeros(len(route), OUTCOME)
        rows["t_ns"], rows["route"] = t_ns, route
        rows["seq"] = np.arange(self._seq, self._seq + len(rows))
        self._seq += len(rows)
        delay = self._lengths[route] * _HOP_NS + self.rng.exponential(_JITTER_NS, len(rows))
        lost = np.zeros(len(rows), bool)
        for fault, times_crossed in crossed:
            active = (t_ns >= fault.since * 1e9) & (t_ns < fault.until * 1e9)
            k = np.where(active, times_crossed[route], 0)
            lost |= self.rng.random(len(rows)) > (1 - fault.rate) ** k
            delay += k * fault.delay * 1e9
        if self._doomed is not None and (hits := np.flatnonzero(self._doomed[route])).size:
            lost[hits[0]], self._doomed = True, None
        rows["status"] = np.where(lost, Status.LOST, Status.ARRIVED)
        rows["delay_ns"] = np.where(lost, 0, delay)
        self.sent += len(rows)
        return rows

    _base = 0


def _crossings(element: Element, hops: Sequence) -> int:  # type: ignore[type-arg]
    if element.kind is Kind.LINK:
        return sum(hop.link == element.subject for hop in hops)
    if element.kind is Kind.DIRECTION:
        return sum((hop.link, hop.tail, hop.head) == (element.subject, element.tail, element.head) for hop in hops)
    if element.kind is Kind.SWITCH:
        return sum(hop.head == element.subject for hop in hops[:-1])
    return int(hops[0].tail == element.subject) + int(hops[-1].head == element.subject)
