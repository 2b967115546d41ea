"""Who sends to whom, and in which order: the patterns of MRC transfers by name."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.addressing import AddressPlan
from testbed.errors import UsageError, nearest
from testbed.lab import Lab
from testbed.traffic.mrc.plan import Program
from testbed.traffic.pairs import Pair, choose_pairs, incast, ring

PATTERNS = ("permutation", "all", "incast", "ring-all-reduce", "all-to-all")


def choose(lab: Lab, addresses: AddressPlan, pattern: str | Iterable[Pair], seed: int) -> tuple[Program, list[Pair]]:
    """The program and the pairs of a pattern.

    Raises UsageError for an unknown one, or one that the lab is too small for, LabError for unknown hosts.
    """
    if not isinstance(pattern, str) or pattern in ("permutation", "all"):
        return Program.STREAM, choose_pairs(lab, addresses, pattern, seed)
    if pattern == "incast":
        return Program.STREAM, incast(lab, addresses)
    if pattern == "ring-all-reduce":
        return Program.ALL_REDUCE, ring(lab, addresses)
    if pattern == "all-to-all":
        return Program.ALL_TO_ALL, choose_pairs(lab, addresses, "all", seed)
    raise UsageError(
        f"there is no pattern called {pattern!r}", expected=", ".join(PATTERNS), nearest=nearest(pattern, PATTERNS)
    )
