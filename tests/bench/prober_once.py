"""Transfers on a shaped lab with the prober beside them and without, in turns; prints the turns as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from typing import Any

from testbed.experiment.transfers import measure_transfers
from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.fabric.netns.syscalls import set_parent_death_signal
from testbed.lab import Lab
from testbed.traffic.workloads import Traffic

#: One pair over four planes of 16 Mbit/s: two processors are at most half busy with it.
LAB = """
name: prober-bench
planes: 4
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 2
link: {rate: 100Gbit/s, mtu: 9000}
time_scale: 6250
"""
PAIR = ("h0", "h2")
MESSAGE = 256 * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    set_parent_death_signal()
    found: list[dict[str, Any]] = []
    with bring_up(Lab.parse(LAB)) as fabric:
        for number in range(arguments.pairs):
            # The order changes, so that what drifts favours neither.
            order = (True, False) if number % 2 else (False, True)
            found += [_turn(fabric, number, probing, arguments.seconds) for probing in order]
    json.dump(found, sys.stdout)
    return 0


def _turn(fabric: NetnsFabric, seed: int, probing: bool, seconds: float) -> dict[str, Any]:
    traffic = Traffic(fabric, seed)
    prober = traffic.prober()
    flows = traffic.mrc([PAIR], message=MESSAGE)
    with prober.running() if probing else nullcontext(), flows.running():
        flows.go_on_for(seconds)
    measured = measure_transfers(fabric.lab, flows)
    headroom = flows.outcome.pressure.cpu_headroom
    figures = {figure.name: figure.value for figure in prober.figures()} if probing else {}
    return {
        "pair": seed,
        "probing": probing,
        "goodput": measured.value("goodput"),
        "busy": None if headroom is None else 1 - headroom,
        "cpu": figures.get("prober_cpu"),
        "rate": prober.rate,
        "accused": figures.get("suspects"),
        "limited_by": measured.unknown_because,
    }


if __name__ == "__main__":
    sys.exit(main())
