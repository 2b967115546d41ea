"""What MRC transfers reach on the laptop lab, and how soon they are back when a T1 reboots under them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from tests.bench import child
from tests.bench.figures import Figure, Limit, Section
from tests.bench.options import Options
from tests.bench.transfers_once import BACK_S


def measure(options: Options) -> Section:
    """Let one queue pair fill eight planes, then reboot T1s under it; and again with links of half the rate."""
    rounds, reboots, seconds = (1, 5, 1.0) if options.quick else (3, 20, 3.0)
    full, half = (
        child.run_module(
            "tests.bench.transfers_once",
            f"--rounds={rounds}",
            f"--reboots={reboots}",
            f"--seconds={seconds}",
            f"--slower={slower}",
        )
        for slower in (1, 2)
    )
    about = (
        f"lab laptop, one pair across T1s, one QP, messages of 1 MiB; {reboots} T1 reboots a round; "
        "at half rate: the same lab at twice its time scale, where processors have time to spare"
    )
    return Section(
        "transfers", about, (*_steady(full), *_back(full, reboots, ""), *_back(half, reboots, ", half rate"))
    )


def _column(found: Sequence[dict[str, Any]], name: str) -> tuple[float, ...]:
    return tuple(float(one[name]) for one in found)


def _unknown(found: Sequence[dict[str, Any]]) -> str:
    return "; ".join(sorted({one["limited_by"] for one in found} - {""}))


def _steady(found: Sequence[dict[str, Any]]) -> tuple[Figure, ...]:
    unknown, none = _unknown(found), Limit("<=", 0, "worst")
    ceiling = "goodput to the header-limited rate of 8 planes"
    return (
        Figure("rate", "ratio", ceiling, _column(found, "rate"), Limit(">=", 0.95), unknown=unknown),
        Figure(
            "imbalance",
            "ratio",
            "largest plane to the mean",
            _column(found, "imbalance"),
            Limit("<=", 1.02, "worst"),
            unknown=unknown,
        ),
        Figure("reordered", "ratio", "packets received after one with a larger PSN", _column(found, "reordered")),
        Figure("lost", "packets", "without a fault", _column(found, "steady_lost"), none, unknown=unknown),
        Figure("unloaded RTT", "s", "the shortest round trip of a sender", _column(found, "base_rtt_s")),
    )


def _back(found: Sequence[dict[str, Any]], reboots: int, at: str) -> tuple[Figure, ...]:
    """How soon goodput is back. Reboots beside which the machine stood still are left out."""
    limit_s = max(BACK_S, 3 * max(one["base_rtt_s"] for one in found))

    def p95(name: str, *, calm: bool = False) -> tuple[float, ...]:
        """Of each round; an unknown value counts as the worst there is."""
        worst = []
        for one in found:
            chosen = one["calm"] if calm else [True] * len(one[name])
            values = sorted(
                math.inf if value is None else value for value, keep in zip(one[name], chosen, strict=True) if keep
            )
            worst.append(values[math.ceil(0.95 * len(values)) - 1] if values else math.inf)
        return tuple(worst)

    failover, unknown = p95("failover", calm=True), _unknown(found)
    if any(sum(one["calm"]) < reboots for one in found):
        unknown = unknown or "the machine's processors stood still beside too many reboots"
    if statistics.median(failover) > limit_s:
        unknown = unknown or "; ".join(sorted({one["overworked"] for one in found} - {""})[-1:])
    none = Limit("<=", 0, "worst")
    return (
        Figure(f"failed{at}", "messages", "in either part", _column(found, "failed"), none),
        Figure(f"mismatches{at}", "messages", "in either part", _column(found, "mismatches"), none),
        Figure(
            f"failover, p95{at}",
            "s",
            "windows of 5 ms, from the first packet lost; reboots beside which the machine stood still left out",
            failover,
            Limit("<=", limit_s),
            unknown=unknown,
        ),
        Figure(f"reboots{at}", "count", "that decide", tuple(float(sum(one["calm"])) for one in found)),
        Figure(f"left out{at}", "count", "reboots", tuple(float(one["calm"].count(False)) for one in found)),
        Figure(f"endpoint busy{at}", "ratio", "time in which the busier one worked or waited", _column(found, "busy")),
        Figure(
            f"undisturbed, p95{at}",
            "s",
            "what failover comes to at moments without a fault, pauses of the machine and all",
            p95("failover_undisturbed"),
        ),
        Figure(f"detect, p95{at}", "s", "from the T1's end to the sender's first word of it", p95("detect", calm=True)),
        Figure(
            f"path restore, p95{at}",
            "s",
            "from its return to the use of every EV again",
            p95("path_restore"),
        ),
    )
