"""What MRC transfers reach on the laptop lab, and how soon they are back when a T1 reboots under them."""

from __future__ import annotations

import math
import statistics
from typing import Any

from tests.bench import child
from tests.bench.figures import Figure, Limit, Section
from tests.bench.options import Options

#: The larger of three unloaded round trips and this.
_BACK_S = 0.020


def measure(options: Options) -> Section:
    """Let one queue pair fill eight planes, then reboot T1s under it."""
    rounds, reboots, seconds = (1, 5, 1.0) if options.quick else (3, 20, 3.0)
    found: list[dict[str, Any]] = child.run_module(
        "tests.bench.transfers_once", f"--rounds={rounds}", f"--reboots={reboots}", f"--seconds={seconds}"
    )
    unknown = "; ".join(sorted({one["limited_by"] for one in found} - {""}))
    limit_s = max(_BACK_S, 3 * max(one["base_rtt_s"] for one in found))

    def column(name: str) -> tuple[float, ...]:
        return tuple(float(one[name]) for one in found)

    def p95(name: str) -> tuple[float, ...]:
        """Of each round; an unknown value counts as the worst there is."""
        known = [sorted(math.inf if value is None else value for value in one[name]) for one in found]
        return tuple(values[math.ceil(0.95 * len(values)) - 1] for values in known)

    # A machine that breaks goodput without any fault decides the failover that is longer than its limit.
    broken = any(0 < value < math.inf for value in p95("failover_undisturbed"))
    failover_unknown = unknown or (
        "goodput breaks without a fault, too" if broken and statistics.median(p95("failover")) > limit_s else ""
    )
    figures = (
        Figure(
            "rate",
            "ratio",
            "goodput to the header-limited rate of 8 planes",
            column("rate"),
            Limit(">=", 0.95),
            unknown=unknown,
        ),
        Figure(
            "imbalance",
            "ratio",
            "largest plane to the mean",
            column("imbalance"),
            Limit("<=", 1.02, "worst"),
            unknown=unknown,
        ),
        Figure("reordered", "ratio", "packets received after one with a larger PSN", column("reordered")),
        Figure("lost", "packets", "without a fault", column("steady_lost"), Limit("<=", 0, "worst"), unknown=unknown),
        Figure("failed", "messages", "in either part", column("failed"), Limit("<=", 0, "worst")),
        Figure("mismatches", "messages", "in either part", column("mismatches"), Limit("<=", 0, "worst")),
        Figure("unloaded RTT", "s", "the shortest round trip of a sender", column("base_rtt_s")),
        Figure(
            "failover, p95",
            "s",
            "windows of 5 ms, from the first packet lost",
            p95("failover"),
            Limit("<=", limit_s),
            unknown=failover_unknown,
        ),
        Figure(
            "failover, undisturbed",
            "s",
            "the same at moments without a fault",
            p95("failover_undisturbed"),
        ),
        Figure(
            "detect, p95",
            "s",
            "from the T1's end to the sender's first word of it",
            p95("detect"),
            None,
            unknown=unknown,
        ),
        Figure(
            "path restore, p95",
            "s",
            "from its return to the use of every EV again",
            p95("path_restore"),
            None,
            unknown=unknown,
        ),
    )
    about = f"lab laptop, one pair across T1s, one QP, messages of 1 MiB; {reboots} T1 reboots a round"
    return Section("transfers", about, figures)
