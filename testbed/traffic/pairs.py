"""Which hosts send to which."""

from __future__ import annotations

import random
from collections.abc import Iterable

from testbed.addressing import AddressPlan
from testbed.errors import UsageError, nearest
from testbed.lab import Lab

Pair = tuple[str, str]

_PATTERNS = ("all", "permutation")


def choose_pairs(lab: Lab, addresses: AddressPlan, pairs: str | Iterable[Pair], seed: int) -> list[Pair]:
    """The pairs of a pattern, or the given ones, each with at least one usable path.

    Args:
        lab: whose hosts.
        addresses: its paths.
        pairs: ``permutation`` (every host sends to one other and receives from one other, drawn from ``seed``),
            ``all`` (every ordered pair), or pairs of host names.
        seed: for ``permutation``.

    Raises UsageError for an unknown pattern or when nothing is left, LabError for an unknown host.
    """
    hosts = list(lab.topology.hosts)
    if pairs == "all":
        chosen = [(src, dst) for src in hosts for dst in hosts if src != dst]
    elif pairs == "permutation":
        chosen = _permutation(hosts, seed)
    elif isinstance(pairs, str):
        raise UsageError(
            f"there is no pattern of pairs called {pairs!r}",
            expected=" or ".join(_PATTERNS),
            nearest=nearest(pairs, _PATTERNS),
        )
    else:
        chosen = list(dict.fromkeys(pairs))
    usable = [(src, dst) for src, dst in chosen if src != dst and addresses.evs(src, dst)]
    if not usable:
        raise UsageError("no pair of hosts is left that has a path", found=f"{len(hosts)} hosts, pairs {pairs!r}")
    return usable


def _permutation(hosts: list[str], seed: int) -> list[Pair]:
    """A random cyclic order: nobody sends to itself, and every host is in it."""
    order = list(hosts)
    random.Random(seed).shuffle(order)  # noqa: S311 - a workload's choice, not a secret
    return [(order[i], order[(i + 1) % len(order)]) for i in range(len(order))] if len(order) > 1 else []
