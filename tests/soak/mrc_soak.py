"""MRC soak: collectives and streams go on while switches, links and ports fail at random.

    python -m tests.soak.mrc_soak --seconds 3600 --seed 1

One fabric, one pattern of transfers after the other, each for a part of the time; meanwhile faults drawn from the seed
come and heal, several at once, never all planes together. Afterwards every message must have arrived, byte for
byte; none may be stuck; and the memory of the endpoints must not have grown. Exit code 1 when one of these does
not hold, 4 when it could not be carried out.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from testbed.errors import BedError
from testbed.fabric.netns.fabric import bring_up
from testbed.fabric.protocols import Fabric
from testbed.faults.catalogue import Faults
from testbed.faults.nemesis import Limits
from testbed.faults.playing import Playing
from testbed.lab import Lab
from testbed.ledger.ledger import draw_up
from testbed.traffic.mrc.transfers import MrcTransfers
from testbed.traffic.workloads import Traffic

#: Four senders at once on two processors: links of 25 Mbit/s, reboots of a quarter of a second.
LAB = """
name: soak
planes: 8
t0_per_plane: 2
t1_per_plane: 2
hosts_per_t0: 2
link: {rate: 100Gbit/s, mtu: 9000}
time_scale: 4000
reboot:
  cold: {links_lost: 150 ms, tables_empty: 100 ms}
"""
PATTERNS = ("ring-all-reduce", "all-to-all", "permutation", "incast")
#: What takes paths away as a whole: a message that fails nevertheless is a defect. Cuts may be as short as a flap.
WEIGHTS = {"reboot": 2.0, "link_down": 3.0}
LIMITS = Limits(at_once=3, whole_planes=5, gap_s=0.5, shortest_s=0.02, longest_s=1.0)
#: Memory is compared from here on: buffers and tables have then reached their size.
WARM_UP_S = 5.0
#: An endpoint's memory may differ by so much between the first and the last third of a pattern's time.
GROWTH_BYTES = 4 << 20
_POLL_S = 0.05


@dataclass
class Part:
    """What one pattern's time came to."""

    pattern: str
    seconds: float
    messages: int = 0
    failed: int = 0
    mismatches: int = 0
    retransmissions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    growth_bytes: int | None = None
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        """One row of the table."""
        growth = "      -" if self.growth_bytes is None else f"{self.growth_bytes / 1024:+7.0f}"
        return (
            f"{self.pattern:16} {self.seconds:8.1f} {self.messages:9} {self.failed:7} {self.mismatches:11} "
            f"{self.retransmissions:9} {sum(self.faults.values()):7} {growth}"
        )


HEADER = (
    f"{'pattern':16} {'seconds':>8} {'messages':>9} {'failed':>7} {'mismatches':>11} {'resent':>9} {'faults':>7} "
    f"{'KiB +-':>7}"
)


def soak(seconds: float, seed: int, *, tell: bool = True) -> list[Part]:
    """Run it; every part with what was wrong in it."""
    rng = random.Random(seed)
    parts: list[Part] = []
    if tell:
        print(HEADER, flush=True)
    with bring_up(Lab.parse(LAB)) as fabric:
        deadline = time.monotonic() + seconds
        each = max(12.0, min(seconds / len(PATTERNS), 300.0))
        number = 0
        while (left := deadline - time.monotonic()) > 0:
            pattern = PATTERNS[number % len(PATTERNS)]
            part = _part(fabric, pattern, min(each, left), rng)
            parts.append(part)
            if tell:
                print(part.line(), flush=True)
                for line in part.wrong:
                    print(f"  {line}", flush=True)
            number += 1
    return parts


def _part(fabric: Fabric, pattern: str, seconds: float, rng: random.Random) -> Part:
    message = rng.choice([64, 1000, 4096, 40_000, 262_144]) & ~7
    flows = Traffic(fabric, seed=rng.randrange(1 << 30)).mrc(
        pattern, message=message, qps=rng.choice([1, 2]) if pattern in ("permutation", "incast") else 1, samples=0
    )
    part = Part(f"{pattern}", seconds)
    faults = Faults(fabric)
    nemesis = faults.nemesis(seconds, seed=rng.randrange(1 << 30), weights=WEIGHTS, limits=LIMITS)
    with flows.running():
        memory = _live_through(flows, nemesis, seconds)
    outcome = flows.outcome
    part.faults = Counter(fault.kind for fault in nemesis.faults)
    part.messages = outcome.completed_messages
    part.failed = outcome.failed_messages
    part.mismatches = sum(flow.mismatches for flow in outcome.messages)
    part.retransmissions = outcome.counters.get("mrc_retransmits", 0)
    part.wrong = [f"flow {flow.name}: {outcome.why[flow.name]}" for flow in outcome.messages if flow.failed]
    part.wrong += outcome.mismatches
    counted = flows.counted
    ledger = draw_up(fabric.lab, counted.before, counted.after, counted.hosts, smallest=counted.smallest)
    part.wrong += [f"unexplained: {one.packets} packets at {one.place}" for one in ledger.remainders]
    part.wrong += [f"the ledger is unknown: {ledger.unknown}"] if ledger.unknown and not ledger.remainders else []
    part.growth_bytes = _growth(memory)
    if part.growth_bytes is not None and part.growth_bytes > GROWTH_BYTES:
        part.wrong.append(f"the memory of an endpoint grew by {part.growth_bytes / 1024:.0f} KiB")
    differences = fabric.check()
    part.wrong += [f"not as planned afterwards: {line}" for line in differences[:3]]
    if not part.messages:
        part.wrong.append("no message completed")
    return part


def _live_through(flows: MrcTransfers, nemesis: Playing, seconds: float) -> dict[str, list[int]]:
    """Faults come and go; returns host → its memory now and then, after the warm-up."""
    memory: dict[str, list[int]] = {}
    began = time.monotonic()
    with nemesis:
        while (now := time.monotonic()) < began + seconds:
            flows.go_on_for(_POLL_S)
            if now > began + WARM_UP_S:
                for host, counters in flows.live_counters().items():
                    memory.setdefault(host, []).append(counters.get("process_resident_memory_bytes", 0))
        nemesis.wait()
    # Everything is whole again: what was held up must get through.
    flows.wait_messages(len(flows.flows))
    return memory


def _growth(memory: dict[str, list[int]]) -> int | None:
    """The most that any endpoint's memory grew from the first to the last third; None for too short a time."""
    grown = []
    for values in memory.values():
        third = len(values) // 3
        if third >= 20:
            grown.append(int(statistics.median(values[-third:]) - statistics.median(values[:third])))
    return max(grown, default=None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.mrc_soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long [3600]")
    parser.add_argument("--seed", type=int, default=1, help="of faults and workloads [1]")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        parts = soak(arguments.seconds, arguments.seed)
    except BedError as error:
        print(f"could not be carried out: {error}", file=sys.stderr)
        return 4
    wrong = [part for part in parts if part.wrong]
    faults = sum((part.faults for part in parts), Counter[str]())
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
    print(f"{time.monotonic() - began:.0f} s, {sum(part.messages for part in parts)} messages, faults: {kinds}")
    print("every byte right, nothing stuck, memory flat" if not wrong else f"{len(wrong)} of {len(parts)} parts wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
