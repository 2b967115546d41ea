"""What several benchmarks take from runs of :mod:`tests.bench.fabric_once`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from tests.bench import child
from tests.bench.figures import Figure
from tests.bench.load import Share, wait_until_quiet
from tests.bench.options import Options
from tests.bench.settle import settle

Run = dict[str, Any]


def fabric_run(options: Options, lab: str, *arguments: str) -> Run:
    """One fabric in a fresh process, nothing of earlier ones being taken apart meanwhile. Raises ChildError."""
    settle(rootless=options.rootless)
    wait_until_quiet(options.patience_s)
    run: Run = child.run_module("tests.bench.fabric_once", lab, *arguments)
    return run


def values(runs: Iterable[Run], name: str) -> tuple[float, ...]:
    """A figure of each run."""
    return tuple(run[name] for run in runs)


def processor_s(runs: Iterable[Run]) -> tuple[float, ...]:
    """Time that all processors together spent on bringing each run's fabric up."""
    return tuple(run["share"]["own"] * run["up_s"] * (os.cpu_count() or 1) for run in runs)


def shares(runs: Iterable[Run]) -> tuple[Share, ...]:
    """How the processors were used in each run."""
    return tuple(Share(**run["share"]) for run in runs)


def step_figures(runs: Sequence[Run], whose: str, definitions: dict[str, str]) -> list[Figure]:
    """A figure per step of the runs."""
    return [
        Figure(f"{whose}: {step}", "s", definitions[step], tuple(run["steps_s"].get(step, 0.0) for run in runs))
        for step in runs[0]["steps_s"]
    ]
