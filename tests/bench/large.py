"""How far one machine goes: ``large`` on two processors, in time and memory."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Self

from tests.bench.fabric_runs import Run, fabric_run, shares, step_figures, values
from tests.bench.figures import Figure, Limit, Section
from tests.bench.options import Options

LAB = "large"
PROCESSORS = 2
WATCHED = 16
_STEPS = dict.fromkeys(("keeper", "namespaces", "links", "tables", "verify"), "as in bring-up")


class MemoryWatch:
    """How far the machine's available memory fell below what it was at the start, in MiB."""

    _INTERVAL_S = 0.05

    def __init__(self) -> None:
        self._before = self._least = _available_mib()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._INTERVAL_S):
            self._least = min(self._least, _available_mib())

    @property
    def taken_mib(self) -> float:
        return self._before - self._least


def measure(options: Options) -> Section:
    """Twice, or once where it is to be quick."""
    about = f"{LAB}, bound to {PROCESSORS} processors"
    have = len(os.sched_getaffinity(0))
    if have < PROCESSORS:
        reason = f"this machine has {have} processor"
        return Section("large", about, (Figure("bring-up", "s", "", limit=Limit("<=", 12), not_run=reason),))
    runs: list[Run] = []
    taken: list[float] = []
    for _ in range(1 if options.quick else 3):
        with MemoryWatch() as memory:
            runs.append(fabric_run(options, LAB, "--cpus", str(PROCESSORS), "--observe", str(WATCHED)))
        taken.append(memory.taken_mib)
    about = f"{about}: {runs[0]['nodes']} nodes, {runs[0]['links']} links"
    loads = shares(runs)
    return Section(
        "large",
        about,
        (
            Figure("bring-up", "s", "as in bring-up", values(runs, "up_s"), Limit("<=", 12), loads),
            Figure(
                "memory",
                "MiB",
                "the most that the machine's MemAvailable fell: kernel, keeper, runner, and whatever else ran",
                tuple(taken),
                Limit("<=", 1024, "worst"),
                loads,
                relative=True,
            ),
            Figure("runner", "MiB", "largest resident memory, within the above", _peaks(runs, "runner")),
            Figure("keeper", "MiB", "largest resident memory, within the above", _peaks(runs, "keeper")),
            Figure("down", "s", "from the call of close() to its return", values(runs, "down_s")),
            Figure(
                "released",
                "s",
                f"from close()'s return until the last of {WATCHED} nodes' namespaces was taken apart",
                tuple(max(run["released_s"].values()) for run in runs),
                Limit("<=", 5, "worst"),
                loads,
            ),
            *step_figures(runs, "bring-up", _STEPS),
        ),
        (
            f"MemAvailable was read every {MemoryWatch._INTERVAL_S * 1000:.0f} ms",
            "a later run takes less of it than the first, for the kernel keeps some of an earlier one's for reuse",
        ),
    )


def _peaks(runs: list[Run], whose: str) -> tuple[float, ...]:
    return tuple(run["peak_mib"][whose] for run in runs)


def _available_mib() -> float:
    with open("/proc/meminfo") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/meminfo does not tell MemAvailable")
