"""What it takes to know that a fabric is as planned, instead of building it anew."""

from __future__ import annotations

import itertools

from tests.bench.fabric_runs import fabric_run, shares
from tests.bench.figures import Figure, Limit, Section
from tests.bench.options import Options


def measure(options: Options) -> Section:
    """Check a fabric several times over."""
    checks = 3 if options.quick else 20
    figures = []
    for lab in ("laptop", "reference"):
        runs = [fabric_run(options, lab, "--checks", str(checks)) for _ in range(1 if options.quick else 3)]
        samples = tuple(itertools.chain.from_iterable(run["check_s"] for run in runs))
        definition = "from the call of check() to its return, on a fabric that is as planned"
        figures.append(Figure(f"check, {lab}", "s", definition, samples, Limit("<=", 0.1), shares(runs)))
    return Section("pristine", "every table of every node read and compared with the plan", tuple(figures))
