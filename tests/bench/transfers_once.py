"""Transfers on the laptop lab, undisturbed and while T1s reboot; prints what they came to as JSON."""

from __future__ import annotations

import argparse
import json
import random
import sys
from typing import Any

from testbed.experiment.calm import calm_beside, overworked
from testbed.experiment.transfers import TransfersMeasured, measure_transfers
from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.fabric.netns.syscalls import set_parent_death_signal
from testbed.faults.catalogue import Faults
from testbed.faults.scope import FaultScope
from testbed.lab import Lab
from testbed.traffic.workloads import Traffic

_MESSAGE = 1 << 20
_SETTLED_S, _BETWEEN_S = 1.0, 0.15
#: Three unloaded round trips are less.
BACK_S = 0.020


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--reboots", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--slower", type=int, required=True, help="times the lab's time scale")
    arguments = parser.parse_args()
    set_parent_death_signal()
    lab = Lab.load("laptop")
    lab = lab.model_copy(update={"time_scale": lab.time_scale * arguments.slower})
    with bring_up(lab) as fabric:
        rounds = [
            _round(fabric, seed, arguments.reboots, arguments.seconds, arguments.slower)
            for seed in range(arguments.rounds)
        ]
    json.dump(rounds, sys.stdout)
    return 0


def _round(fabric: NetnsFabric, seed: int, reboots: int, seconds: float, slower: int) -> dict[str, Any]:
    lab, traffic, faults = fabric.lab, Traffic(fabric, seed), Faults(fabric)
    hosts = lab.topology.hosts
    pair = [(hosts[0], hosts[-1])]
    flows = traffic.mrc(pair, message=_MESSAGE)
    with flows.running():
        flows.go_on_for(seconds)
    steady = measure_transfers(lab, flows)
    assert lab.emulated_rate is not None
    ceiling = lab.planes * lab.emulated_rate * flows.payload_share
    flows = traffic.mrc(pair, message=_MESSAGE)
    rng = random.Random(seed)
    scopes, calm = list[FaultScope](), list[bool]()
    with flows.running():
        flows.go_on_for(_SETTLED_S)
        while sum(calm) < reboots and len(calm) < 2 * reboots:
            with faults.reboot(f"p{rng.randrange(lab.planes)}-t1-{rng.randrange(lab.t1_per_plane)}") as reboot:
                reboot.wait("forwarding")
            scopes.append(reboot)
            flows.go_on_for(_BETWEEN_S * slower)
            calm.append(calm_beside(flows, reboot, BACK_S))
    shaken = measure_transfers(lab, flows, scopes)
    return {
        "limited_by": steady.unknown_because or shaken.unknown_because,
        "calm": calm,
        "overworked": overworked(flows),
        "busy": max(flows.outcome.busy.values()),
        "rate": steady.value("goodput") / ceiling,
        "imbalance": steady.value("plane_imbalance"),
        "reordered": steady.value("reordered_ratio"),
        "steady_lost": steady.value("lost"),
        "failed": steady.value("messages_failed") + shaken.value("messages_failed"),
        "mismatches": steady.value("mismatches") + shaken.value("mismatches"),
        "base_rtt_s": (flows.outcome.base_rtt_ns or 0) * 1e-9,
        **{name: _values(shaken, name) for name in ("failover", "failover_undisturbed", "detect", "path_restore")},
    }


def _values(measured: TransfersMeasured, name: str) -> list[float | None]:
    return [figure.value for figure in measured.figures if figure.name == name]


if __name__ == "__main__":
    sys.exit(main())
