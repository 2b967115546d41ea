"""Prober soak: random faults of each class on a lab, one or two at a time; then a healthy run.

    python -m tests.soak.prober_soak --rounds 20 --healthy 600 --seed 1

Prints a table: how many faults of each class were named rightly in time, how soon, and what was accused wrongly.
Exit code 1 when a class surely misses its share or the healthy run accused anything; 3 when a class has less than its
share, but so few rounds that chance explains it (one in twenty), or packets that the machine itself dropped; 4 when it
could not be carried out.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction

from testbed.errors import BedError
from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.faults.catalogue import Faults
from testbed.lab import Lab, Tier
from testbed.lab.model import Reboot
from testbed.localise.elements import Element, Kind
from testbed.localise.suspects import What
from testbed.record import Event
from testbed.traffic.prober.prober import Prober
from testbed.traffic.workloads import Traffic
from tests.netns.broken import ALL, breaking, usid_missing

#: Long enough that a reboot is still under way when it has to be named.
REBOOT = Reboot.model_validate({"cold": {"links_lost": "20 s", "tables_empty": "100 ms"}})
PERCENT = Fraction(1, 100)
PARTIAL_S = 10.0
HARD, PARTIAL, PAIR = 1.0, 0.99, 0.95

#: A fault, and what it has to be named as.
Broken = tuple[AbstractContextManager[Event], frozenset[Element]]


@dataclass
class Row:
    """What one class of faults came to."""

    name: str
    least: float
    rounds: int = 0
    right: int = 0
    times: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    unknown: int = 0

    @property
    def missed_surely(self) -> bool:
        """Whether so few would be right by chance in less than one case in twenty, if the class had its share."""
        right, p = self.right + self.unknown, self.least
        chance = sum(
            math.comb(self.rounds, n) * p**n * (1 - p) ** (self.rounds - n) for n in range(min(right, self.rounds) + 1)
        )
        return right < self.rounds and chance < 0.05

    def line(self) -> str:
        """One row of the table."""
        times = sorted(self.times)
        p50 = f"{statistics.median(times):7.2f}" if times else "      -"
        worst = f"{times[-1]:7.2f}" if times else "      -"
        share = f"{self.right / self.rounds:7.1%}" if self.rounds else "not run"
        return (
            f"{self.name:34} {self.rounds:6} {self.right:6} {share:>7} {self.least:6.0%} {p50} {worst} "
            f"{len(self.wrong):6} {self.unknown:8}"
        )


HEADER = (
    f"{'class':34} {'rounds':>6} {'named':>6} {'share':>7} {'asked':>6} {'p50 s':>7} {'max s':>7} {'wrong':>6} "
    f"{'unknown':>8}"
)


class Drawer:
    """Draws faults from a random generator."""

    def __init__(self, fabric: NetnsFabric, rng: random.Random) -> None:
        self._fabric = fabric
        self._rng = rng
        topology = fabric.lab.topology
        self._links = topology.links
        self._switches = topology.switches

    def link(self, tier: Tier | None = None) -> Element:
        """A link, above a tier if one is given."""
        topology = self._fabric.lab.topology
        links = [link for link in self._links if tier is None or topology.tier(link.a.node) is tier]
        return Element(Kind.LINK, self._rng.choice(links).name)

    def direction(self, tier: Tier | None = None) -> Element:
        """One direction of a link."""
        link = self._fabric.lab.topology.link(self.link(tier).subject)
        ends = [link.a.node, link.b.node]
        self._rng.shuffle(ends)
        return Element(Kind.DIRECTION, link.name, *ends)

    def switch(self) -> Element:
        """A switch."""
        return Element(Kind.SWITCH, self._rng.choice(self._switches))

    def lossy(self, element: Element, share: Fraction = ALL) -> Broken:
        """What crosses an element is dropped, in part or all of it."""
        return breaking(self._fabric, element, share), frozenset([element])

    def link_down(self) -> Broken:
        """A link without carrier."""
        element = self.link()
        return _scope(Faults(self._fabric).link_down(element.subject), "carrier lost"), frozenset([element])

    def reboot(self) -> Broken:
        """A switch that reboots."""
        element = self.switch()
        return _scope(Faults(self._fabric).reboot(element.subject), "stopped"), frozenset([element])

    def usid(self) -> Broken:
        """A switch without a route to one neighbour's uSID."""
        element = self.direction()
        while element.tail.startswith("h"):
            element = self.direction()
        (link,) = [link for link in self._links if link.name == element.subject]
        usid = f"{element.head}:p{link.plane}" if element.head.startswith("h") else element.head
        return usid_missing(self._fabric, element.tail, usid), frozenset([element])

    def hard(self) -> Broken:
        """A hard fault of some class."""
        kinds: list[Callable[[], Broken]] = [
            self.link_down,
            self.reboot,
            self.usid,
            lambda: self.lossy(self.direction()),
            lambda: self.lossy(self.switch()),
        ]
        return self._rng.choice(kinds)()

    def two(self) -> Broken:
        """Two hard faults, neither of which hides the other."""
        (one, first), (other, second) = self.hard(), self.hard()
        while any(_hides(a, b) or _hides(b, a) for a in first for b in second):
            other, second = self.hard()
        return _both(one, other), first | second


@contextmanager
def _scope(scope: AbstractContextManager[object], event: str) -> Iterator[Event]:
    with scope as fault:
        yield fault.wait(event)  # type: ignore[attr-defined]


@contextmanager
def _both(one: AbstractContextManager[Event], other: AbstractContextManager[Event]) -> Iterator[Event]:
    with one, other as later:
        yield later


def _hides(one: Element, other: Element) -> bool:
    """Whether all that one carries passes the other: then no probe tells whether it is at fault too."""
    if one.kind is Kind.SWITCH:
        return one == other
    return one.subject == other.subject or other.subject in one.subject.replace(":", "~").split("~")


def one_round(prober: Prober, broken: Broken, within_s: float, row: Row) -> None:
    """Break something, and see what the prober says until its time is over; then wait until nothing is accused."""
    fault, truth = broken
    dropped = _machine(prober)
    begun = len(prober.changes())
    with fault as event:
        deadline = event.t_ns + round(within_s * 1e9)
        while time.time_ns() < deadline and {suspect.element for suspect in prober.suspects()} != truth:
            prober.go_on_for(0.02)
        named = {suspect.element for suspect in prober.suspects()}
        elapsed = (time.time_ns() - event.t_ns) * 1e-9
        said = prober.changes()[begun:]
    disturbed = _machine(prober) - dropped
    row.rounds += 1
    if named == truth:
        row.right += 1
        row.times.append(elapsed)
    elif disturbed:
        row.unknown += 1
    else:
        shown = ", ".join(map(str, named)) or "nothing"
        row.missed.append(f"{', '.join(map(str, truth))}: {shown} after {elapsed:.2f} s")
    row.wrong += [
        f"{', '.join(map(str, truth))}: {change.suspect.text()}"
        for change in said
        if change.what is What.ACCUSED and change.suspect.element not in truth
    ]
    if named != truth:
        # What it has seen of the fault must not be taken for the next one.
        prober.go_on_for(2 * PARTIAL_S)
    prober.wait_clear(60.0)


def _machine(prober: Prober) -> int:
    counters = prober.live_counters()
    return counters["ring_drops"] + counters["backlog_drops"]


def single_and_double(fabric: NetnsFabric, rounds: int, rng: random.Random) -> list[Row]:
    """All classes, their rounds mixed."""
    draw = Drawer(fabric, rng)
    prober = Traffic(fabric).prober(healthy_s=0.5)
    hard_s = 3 * prober.cycle_s + prober.waiting_time_s
    classes: dict[str, tuple[float, float, Callable[[], Broken]]] = {
        "link down": (HARD, hard_s, draw.link_down),
        "black hole, one direction": (HARD, hard_s, lambda: draw.lossy(draw.direction())),
        "black hole of one uSID": (HARD, hard_s, draw.usid),
        "switch reboots": (HARD, hard_s, draw.reboot),
        "switch frozen, its links up": (HARD, hard_s, lambda: draw.lossy(draw.switch())),
        "1% lost: link, both directions": (PARTIAL, PARTIAL_S, lambda: draw.lossy(draw.link(), PERCENT)),
        "1% lost: NIC–T0, one direction": (PARTIAL, PARTIAL_S, lambda: draw.lossy(draw.direction(Tier.HOST), PERCENT)),
        "1% lost: T0–T1, one direction": (PARTIAL, PARTIAL_S, lambda: draw.lossy(draw.direction(Tier.T0), PERCENT)),
        "1% lost: switch": (PARTIAL, PARTIAL_S, lambda: draw.lossy(draw.switch(), PERCENT)),
        "two hard faults at once": (PAIR, hard_s, draw.two),
    }
    rows = {name: Row(name, least) for name, (least, _, _) in classes.items()}
    print(
        f"{fabric.lab.name}: {len(prober.loops)} loops, {prober.rate:.0f} probes/s, "
        f"a period {prober.period_s * 1e3:.0f} ms, a cycle {prober.cycle_s * 1e3:.0f} ms; "
        f"hard faults are to be named within {hard_s:.2f} s, losses of 1% "
        f"within {PARTIAL_S:.0f} s",
        flush=True,
    )
    with prober.running():
        prober.go_on_for(2.0)
        for number in range(rounds):
            order = list(classes)
            rng.shuffle(order)
            for name in order:
                _, within_s, make = classes[name]
                one_round(prober, make(), within_s, rows[name])
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return list(rows.values())


def healthy(fabric: NetnsFabric, seconds: float) -> tuple[list[str], str]:
    """Probe a healthy fabric; what was accused, and how the probes fared."""
    prober = Traffic(fabric).prober()
    with prober.running():
        prober.go_on_for(seconds)
    counters = prober.outcome.counters
    figures = {figure.name: figure.value for figure in prober.figures()}
    about = (
        f"healthy for {seconds:.0f} s: {counters['sent']} probes, {counters['lost']} lost, {counters['unknown']} "
        f"unknown, {len(prober.outcome.accused)} accusations; {figures['prober_cpu']:.3f} of a processor"
    )
    return [suspect.text() for suspect in prober.outcome.accused], about


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", default="reference", help="lab, by name or file [reference]")
    parser.add_argument("--rounds", type=int, default=50, help="faults of each class [50]")
    parser.add_argument("--healthy", type=float, default=600.0, metavar="S", help="length of the healthy run [600]")
    parser.add_argument("--seed", type=int, default=1, help="what faults are drawn from [1]")
    arguments = parser.parse_args()
    lab = Lab.load(arguments.lab).model_copy(update={"reboot": REBOOT})
    try:
        with ExitStack() as stack:
            fabric = stack.enter_context(bring_up(lab))
            rows = (
                single_and_double(fabric, arguments.rounds, random.Random(arguments.seed)) if arguments.rounds else []
            )
            accused, about = healthy(fabric, arguments.healthy) if arguments.healthy else ([], "healthy run: not run")
    except BedError as error:
        print(error, file=sys.stderr)
        return 4
    return report(rows, accused, about)


def report(rows: list[Row], accused: list[str], about: str) -> int:
    """Print the table; the exit code."""
    print(HEADER)
    for row in rows:
        print(row.line())
    print("delay: not run; it needs netem, or a shaped lab and traffic (tests/netns/test_prober.py)")
    print(about)
    for row in rows:
        for text in row.missed:
            print(f"{row.name}: missed: {text}")
        for text in row.wrong:
            print(f"{row.name}: accused wrongly: {text}")
    for text in accused:
        print(f"healthy: accused: {text}")
    if accused or any(row.missed_surely for row in rows):
        return 1
    return 3 if any(row.right < row.least * row.rounds for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
