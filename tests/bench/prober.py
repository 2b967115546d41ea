"""What the prober costs the workload beside it."""

from __future__ import annotations

from typing import Any

from tests.bench import child
from tests.bench.figures import Figure, Limit, Section, ratios
from tests.bench.options import Options

#: Above this share of all processors the machine decides the goodput, not the fabric.
_BUSY_MOST = 0.5


def measure(options: Options) -> Section:
    """Goodput with the prober on over goodput without, pair by pair."""
    pairs, seconds = (2, 2.0) if options.quick else (max(3, options.pairs), 5.0)
    found: list[dict[str, Any]] = child.run_module(
        "tests.bench.prober_once", f"--pairs={pairs}", f"--seconds={seconds}"
    )
    with_it = sorted((one for one in found if one["probing"]), key=lambda one: one["pair"])
    without = sorted((one for one in found if not one["probing"]), key=lambda one: one["pair"])
    busy = tuple(float(one["busy"]) for one in found if one["busy"] is not None)
    reasons = {one["limited_by"] for one in found} - {""}
    if not busy or max(busy) > _BUSY_MOST:
        reasons.add(f"the processors were {max(busy, default=1.0):.0%} busy; asked for are at most {_BUSY_MOST:.0%}")
    unknown = "; ".join(sorted(reasons)[-2:])
    goodput = [[float(one["goodput"]) for one in part] for part in (with_it, without)]
    figures = (
        Figure(
            "goodput, prober on to off",
            "ratio",
            "payload placed per second, in runs that took turns",
            ratios(*goodput),
            Limit(">=", 0.98),
            unknown=unknown,
        ),
        Figure("goodput, prober off", "bit/s", "payload placed per second", tuple(goodput[1])),
        Figure("processors busy", "ratio", "all of them, whatever ran, in each run", busy),
        Figure(
            "prober's processor time",
            "ratio",
            "of one processor, its probes' forwarding included",
            tuple(float(one["cpu"]) for one in with_it),
        ),
        Figure(
            "accusations",
            "count",
            "of a healthy fabric",
            tuple(float(one["accused"]) for one in with_it),
            Limit("<=", 0, "worst"),
        ),
    )
    about = (
        f"four planes shaped to 16 Mbit/s, one pair, one QP, messages of 256 KiB; {with_it[0]['rate']:.0f} probes/s; "
        f"{seconds:.0f} s a run"
    )
    return Section("prober", about, figures)
