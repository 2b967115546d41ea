"""One fabric in a fresh process: up, checked, down, and watched until the kernel has released it. Prints JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.fabric.netns.syscalls import set_parent_death_signal
from testbed.lab import Lab
from tests.bench.load import Load
from tests.bench.observer import Observer, observe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lab")
    parser.add_argument("--checks", type=int, default=0, help="how often to check that it is pristine")
    parser.add_argument("--observe", type=int, default=0, help="nodes whose release to watch")
    parser.add_argument("--cpus", type=int, default=0, help="processors to be bound to, its keeper too")
    options = parser.parse_args()
    set_parent_death_signal()
    if options.cpus:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cpus])
    lab = Lab.load(options.lab)
    steps: list[tuple[str, float]] = []
    load = Load()
    began = time.perf_counter()

    def progress(step: str, _done: int, _total: int) -> None:
        if not steps or steps[-1][0] != step:
            steps.append((step, time.perf_counter() - began))

    fabric = bring_up(lab, progress=progress)
    up_s = time.perf_counter() - began
    share = load.share([fabric.client.warden_pid, fabric.client.keeper_pid])
    result = {
        "nodes": len(lab.topology.nodes),
        "links": len(lab.topology.links),
        "up_s": up_s,
        "share": dataclasses.asdict(share),
        "steps_s": _durations(steps, up_s),
        "peak_mib": {"runner": _peak_mib("self"), "keeper": _peak_mib(str(fabric.client.keeper_pid))},
        "check_s": [_check_s(fabric) for _ in range(options.checks)],
    }
    observer = observe(fabric, _spread(fabric, options.observe)) if options.observe else None
    began = time.perf_counter()
    fabric.close()
    result["down_s"] = time.perf_counter() - began
    if observer is not None:
        result["released_s"] = _released(observer)
    print(json.dumps(result))


def _durations(steps: list[tuple[str, float]], up_s: float) -> dict[str, float]:
    """How long each step took; a step lasts until the next one is reported."""
    starts = [("keeper", 0.0), *steps]
    ends = [start for _, start in starts[1:]] + [up_s]
    durations: dict[str, float] = {}
    for (step, start), end in zip(starts, ends, strict=True):
        durations[step] = durations.get(step, 0.0) + end - start
    return durations


def _peak_mib(pid: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/status does not tell VmHWM")


def _check_s(fabric: NetnsFabric) -> float:
    began = time.perf_counter()
    found = fabric.check()
    spent = time.perf_counter() - began
    if found:
        raise RuntimeError(f"not pristine: {found[0]}")
    return spent


def _spread(fabric: NetnsFabric, count: int) -> list[str]:
    """That many nodes, hosts and switches of all planes alike: the first made, the last, and evenly between."""
    nodes = list(fabric.plan.namespaces)
    return [nodes[number * (len(nodes) - 1) // max(1, count - 1)] for number in range(count)]


def _released(observer: Observer) -> dict[str, float]:
    closed_ns = time.monotonic_ns()
    return {node: max(0, t_ns - closed_ns) / 1e9 for node, t_ns in observer.wait().items()}


if __name__ == "__main__":
    main()
