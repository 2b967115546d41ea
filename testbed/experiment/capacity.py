"""What a fabric can still carry of a workload while parts of it are dead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

from testbed.addressing import Path
from testbed.faults.scope import Outage


class Paths(Protocol):
    """The part of a workload that this needs."""

    @property
    def pairs(self) -> Sequence[tuple[str, str]]:
        """(source, destination) of each flow."""
        ...

    @property
    def path_of(self) -> Mapping[tuple[int, int], Path]:
        """(flow number, EV) → path."""
        ...


def surviving_capacity(flows: Paths, outages: Sequence[Outage]) -> float:
    """How many links' worth of load the flows can carry over paths that no outage touches.

    Of each plane the least of three cuts: the sending hosts' ports, the links up from their T0s (as many as the T0 has
    to T1s that lead on alive), and the receiving hosts' ports. All links have one rate.

    Args:
        flows: the workload.
        outages: what is dead.
    """
    alive: dict[int, list[Path]] = defaultdict(list)
    for path in flows.path_of.values():
        if not any(outage.hits(path) for outage in outages):
            alive[path.plane].append(path)
    total = 0.0
    for paths in alive.values():
        senders = {path.nodes[0] for path in paths}
        receivers = {path.nodes[-1] for path in paths}
        local = {path.nodes[0] for path in paths if len(path.nodes) == 3}
        up = {path.links[1].name for path in paths if len(path.nodes) > 3}
        down = {path.links[-2].name for path in paths if len(path.nodes) > 3}
        across = min(len(senders - local), len(up), len(down)) if up else 0
        total += min(len(local) + across, len(senders), len(receivers))
    return total
