"""When which loop is probed: T0 loops every period, T1 loops and wide ones in turn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from testbed.errors import UsageError
from testbed.traffic.prober.loops import Loop, Reach

#: Probes/s of the whole fabric where nothing else is asked for, and periods/s of a port: the paper probes every 1 ms.
MOST_PROBES, MOST_PERIODS = 5_000.0, 1_000.0
#: Wide loops of a port in a period. They cross six links where a T0 loop crosses one twice; ours.
WIDE_EACH = 3
#: Where links are shaped, what probes may take of one, unless a rate is asked for; ours.
LINK_SHARE = 0.005
#: A probe as a shaper counts it: 156 bytes and the Ethernet header.
WIRE_BYTES = 170


@dataclass(frozen=True)
class Schedule:
    """What a prober sends while nothing is in question.

    Attributes:
        period_ns: in which every port sends its T0 loop once.
        turns: for each host, for each period of a cycle, the numbers of the loops it sends; the cycle then begins anew.
    """

    period_ns: int
    turns: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def periods(self) -> int:
        """Periods of a cycle, in which every loop is sent at least once."""
        return len(self.turns[0])

    @property
    def cycle_ns(self) -> int:
        """How long a cycle takes."""
        return self.periods * self.period_ns

    @property
    def together(self) -> int:
        """The most probes that a host sends at one moment."""
        return max(len(turn) for host in self.turns for turn in host)

    @property
    def rate(self) -> float:
        """Probes/s of the whole fabric."""
        probes = sum(len(turn) for host in self.turns for turn in host)
        return probes / self.cycle_ns * 1e9


def affordable(made: Schedule, loops: Sequence[Loop], link_rate: int) -> float:
    """Probes/s of the whole fabric that take :data:`LINK_SHARE` of the link they cross most often.

    Args:
        made: the schedule, at whatever rate.
        loops: by number.
        link_rate: bit/s of each link.
    """
    crossed: Counter[tuple[str, str]] = Counter()
    probes = 0
    for number in (number for host in made.turns for turn in host for number in turn):
        crossed.update(pairwise(loops[number].path.nodes))
        probes += 1
    return LINK_SHARE * link_rate / (8 * WIRE_BYTES) * probes / max(crossed.values())


def schedule(loops: Sequence[Loop], hosts: Sequence[str], rate: float = MOST_PROBES) -> Schedule:
    """The schedule of these loops.

    Args:
        loops: by number.
        hosts: in the order in which they take their turns within a period.
        rate: probes/s of the whole fabric, at most.

    Raises:
        UsageError: no loop, or a rate that is no rate.
    """
    if not loops:
        raise UsageError("there is nothing to probe", expected="a lab in which some host has a link")
    if not 0 < rate <= 1e6:
        raise UsageError("a prober cannot send at this rate", found=f"{rate:g} probes/s", expected="1 to 1,000,000")
    ports: dict[str, dict[int, dict[Reach, list[int]]]] = {host: {} for host in hosts}
    for number, loop in enumerate(loops):
        port = ports[loop.host].setdefault(loop.path.plane, {reach: [] for reach in Reach})
        port[loop.reach].append(number)
    every = [port for planes in ports.values() for port in planes.values()]
    periods = max(max(len(port[Reach.T1]), math.ceil(len(port[Reach.WIDE]) / WIDE_EACH), 1) for port in every)
    turns = tuple(
        tuple(_turn(list(planes.values()), place, period) for period in range(periods))
        for place, planes in enumerate(ports.values())
    )
    most = sum(max(map(len, host)) for host in turns)
    return Schedule(round(max(1e9 / MOST_PERIODS, most / rate * 1e9)), turns)


def _turn(ports: Sequence[dict[Reach, list[int]]], place: int, period: int) -> tuple[int, ...]:
    """The loops a host sends in a period, over all its ports."""
    chosen: list[int] = []
    for port in ports:
        chosen += port[Reach.T0]
        for reach, each in ((Reach.T1, 1), (Reach.WIDE, WIDE_EACH)):
            found = port[reach]
            first = (period + place) * each
            chosen += [found[(first + more) % len(found)] for more in range(min(each, len(found)))]
    return tuple(chosen)
