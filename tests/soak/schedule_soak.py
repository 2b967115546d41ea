"""Schedule soak: random schedules of faults, one after the other, and nothing may stay of any.

    python -m tests.soak.schedule_soak --schedules 500 --seed 1

Each schedule is drawn twice from its seed, and must be the same both times; it is played on the lab `laptop` under path
probes. Afterwards every fault must have healed, the fabric be as planned in every table, and no packet be unexplained.
Exit code 1 when one of these does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter

from testbed.errors import BedError
from testbed.experiment.measurement import measure
from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.faults.catalogue import Faults
from testbed.faults.nemesis import Limits, nemesis
from testbed.faults.playing import Playing
from testbed.lab import Lab
from testbed.traffic.workloads import Traffic

LIMITS = Limits(at_once=5, whole_planes=1, gap_s=0.03, shortest_s=0.01, longest_s=0.25)
LENGTH_S = 0.5
#: Probes of all pairs together, a second.
RATE = 4000


def main() -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    wrong: list[str] = []
    kinds: Counter[str] = Counter()
    heal_s: list[float] = []
    began = time.monotonic()
    with bring_up(Lab.load("laptop")) as fabric:
        for seed in range(arguments.seed, arguments.seed + arguments.schedules):
            try:
                wrong += [f"seed {seed}: {line}" for line in _one(fabric, seed, kinds, heal_s)]
            except BedError as error:
                wrong.append(f"seed {seed}: {error}")
    print(f"{arguments.schedules} schedules, {sum(kinds.values())} faults, {time.monotonic() - began:.0f} s")
    print(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
    if heal_s:
        print(f"healed in: median {statistics.median(heal_s) * 1e3:.1f} ms, longest {max(heal_s) * 1e3:.0f} ms")
    for line in wrong:
        print(f"wrong: {line}")
    print("nothing stayed, every packet explained" if not wrong else f"{len(wrong)} wrong")
    return 1 if wrong else 0


def _one(fabric: NetnsFabric, seed: int, kinds: Counter[str], heal_s: list[float]) -> list[str]:
    able = fabric.capabilities
    drawn, again = (
        nemesis(fabric.lab, seed=seed, length_s=LENGTH_S, limits=LIMITS, capabilities=able) for _ in range(2)
    )
    wrong = [] if drawn == again else ["the same seed gave two schedules"]
    flows = Traffic(fabric, seed).probes(rate=RATE)
    faults = Faults(fabric)
    with flows.running(), faults.play(drawn) as played:
        played.wait()
    kinds.update(event.spec.kind for event in drawn.events)
    wrong += [f"{scope.name}: {scope.error}" for scope in played.faults if scope.error is not None]
    wrong += [f"{scope.name} has not healed" for scope in played.faults if scope.healed is None]
    heal_s += _healed_after(played)
    wrong += fabric.check()
    unexplained = measure(fabric.lab, flows, played.faults).value("unexplained_packets")
    return wrong + ([f"{unexplained:.0f} packets unexplained"] if unexplained else [])


def _healed_after(played: Playing) -> list[float]:
    """How long after its time each fault was healed."""
    assert played.began_ns is not None
    late = []
    for scope, event in zip(played.faults, played.schedule.events, strict=True):
        if scope.healed is not None:
            due_ns = played.began_ns + round(min(event.end_s, played.schedule.length_s) * 1e9)
            late.append(max(0.0, (scope.healed.t_ns - due_ns) * 1e-9))
    return late


if __name__ == "__main__":
    sys.exit(main())
