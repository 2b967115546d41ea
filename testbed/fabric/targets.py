"""Choosing what to hurt by its role rather than by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from testbed.addressing import Path
from testbed.errors import UsageError
from testbed.lab import Lab, Link, Tier


class Carrying(Protocol):
    """A workload that knows the paths its packets take."""

    @property
    def paths(self) -> Iterable[Path]:
        """Every path it sends on, one per flow and EV."""
        ...


def busiest_switch(lab: Lab, tier: Tier, carrying: Carrying) -> str:
    """The switch of a tier that the most paths of a workload pass; of equals the first by name order of the lab.

    Raises UsageError when none does.
    """
    passing = Counter(node for path in carrying.paths for node in path.nodes)
    switches = lab.topology.t0s if tier is Tier.T0 else lab.topology.t1s
    best = max(switches, key=lambda name: passing[name], default=None)
    if best is None or not passing[best]:
        raise _nothing(f"no {tier.upper()} carries this workload")
    return best


def busiest_link(lab: Lab, lower: Tier, carrying: Carrying) -> Link:
    """The link above a tier (``host``: NIC to T0, ``t0``: T0 to T1) that the most paths of a workload pass.

    Raises UsageError when none does.
    """
    passing = Counter(link.name for path in carrying.paths for link in path.links)
    links = [link for link in lab.topology.links if lab.topology.tier(link.a.node) is lower]
    best = max(links, key=lambda link: passing[link.name], default=None)
    if best is None or not passing[best.name]:
        raise _nothing(f"no link above a {lower} carries this workload")
    return best


def _nothing(message: str) -> UsageError:
    return UsageError(
        message,
        remedy="hosts below one T0 reach each other without a T1: choose a pair that crosses, or another target",
    )
