"""How fast a fabric ends, and how soon the kernel has released it."""

from __future__ import annotations

from tests.bench.fabric_runs import fabric_run, shares, values
from tests.bench.figures import Figure, Limit, Section, ratios
from tests.bench.options import Options

LAB = "reference"
WATCHED = 8


def measure(options: Options) -> Section:
    """Bring up, watch some nodes, close, wait for the kernel."""
    count = 2 if options.quick else options.pairs
    runs = [fabric_run(options, LAB, "--observe", str(WATCHED)) for _ in range(count)]
    up, down = values(runs, "up_s"), values(runs, "down_s")
    return Section(
        "down",
        f"{LAB}: {runs[0]['nodes']} nodes, {runs[0]['links']} links",
        (
            Figure("down", "s", "from the call of close() to its return", down),
            Figure(
                "down / up", "ratio", "of the same fabric", ratios(down, up), Limit("<=", 0.3, "worst"), shares(runs)
            ),
            Figure(
                "released",
                "s",
                f"from close()'s return until the last of {WATCHED} nodes' namespaces was taken apart",
                tuple(max(run["released_s"].values()) for run in runs),
                Limit("<=", 5, "worst"),
                shares(runs),
            ),
        ),
        ("a veth pair from each watched node to a namespace outside goes when the kernel takes the node's apart",),
    )
