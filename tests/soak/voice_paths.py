"""What path policies are worth to calls: T1 and T0 reboots and link flaps under each, in one table.

    python -m tests.soak.voice_paths --calls 4 --flaps 60

Every row is a workload of its own; the same switch or link is hit under each policy: one of the pinned path's. ``hit``
says how many flows (a call in one direction) lost anything. Exit code 1 where a call failed or a packet is unexplained,
4 when it could not be carried out.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.errors import BedError
from testbed.experiment.voice import VoiceMeasured, measure_voice
from testbed.fabric.netns.fabric import bring_up
from testbed.fabric.protocols import Fabric, Spread
from testbed.faults.catalogue import Faults
from testbed.faults.scope import FaultScope
from testbed.lab import Lab
from testbed.traffic.voice.calls import VoiceCalls
from testbed.traffic.workloads import Traffic

#: Eight planes in small; a switch is away for a second.
LAB = """
name: voice-paths
planes: 8
t0_per_plane: 3
t1_per_plane: 2
hosts_per_t0: 1
reboot:
  cold: {links_lost: 500 ms, tables_empty: 500 ms}
"""
PER_MINUTE = 4
_BEFORE_S, _AFTER_S = 1.5, 2.0

Inject = Callable[[Faults, VoiceCalls], FaultScope]


@dataclass(frozen=True)
class Row:
    """One policy under one fault."""

    fault: str
    spread: Spread
    measured: VoiceMeasured

    def line(self) -> str:
        """One row of the table."""
        measured = self.measured
        flows = list(measured.flows.outcome.records.listeners)
        hit = sum(measured.value("lost", f"flow {name}") > 0 for name in flows)
        cells = [f"{self.fault:10} {self.spread:8} {hit:>3}/{len(flows):<3}"]
        for direction in ("up", "down"):
            silence = measured.figure("silence_longest", direction)
            mos = measured.figure("voice_mos", direction)
            cells += [
                f"{100 * measured.value('loss_ratio', direction):>7.2f} %",
                f"{self.longest_loss(direction):>6}",
                "unknown" if silence.value is None else f"{1000 * silence.value:>6.0f} ms",
                "unknown" if mos.value is None else f"{mos.value:>5.2f}",
            ]
        return "  ".join(cells)

    def longest_loss(self, direction: str) -> int:
        """Most packets of a flow lost in a row."""
        return int(self.measured.figure("loss_period_max", direction).value or 0)

    @property
    def wrong(self) -> list[str]:
        """What must not be."""
        measured = self.measured
        lines = list(measured.contradictions)
        if measured.figure("unexplained_packets").value != 0:
            lines.append(f"the ledger: {measured.figure('unexplained_packets').note}")
        return lines


_CELLS = f"{'lost':>9}  {'in row':>6}  {'silence':>9}  {'MOS':>5}"
HEADER = f"{'':27}  {'up':<35}  down\n{'fault':10} {'path':8} {'hit':7}  {_CELLS}  {_CELLS}"


def faults_of(calls: VoiceCalls, flaps_s: float, period_s: float) -> dict[str, Inject]:
    """The faults, each of something on the way between client and relay that the pinned path takes."""
    (path, *_) = calls.paths
    t0, t1 = path.nodes[1], path.nodes[2]
    link = path.links[1].name
    count = max(1, round(flaps_s / period_s))
    return {
        "T1 reboot": lambda faults, _: faults.reboot(t1),
        "T0 reboot": lambda faults, _: faults.reboot(t0),
        "flaps": lambda faults, _: faults.flap(link, period=period_s, duty=min(0.5, 1 / period_s), count=count),
    }


def run(
    fabric: Fabric,
    calls: int,
    *,
    flaps_s: float,
    period_s: float = 60 / PER_MINUTE,
    only: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Every fault under every policy.

    Args:
        fabric: where.
        calls: how many at once.
        flaps_s: for how long a link flaps.
        period_s: of the flapping; the link is down for a second of it, or half of it.
        only: faults; by default all.
        tell: takes a line for each row.
    """
    rows = []
    pinned = Traffic(fabric).voice(calls, path=Spread.PINNED)
    for name, inject in faults_of(pinned, flaps_s, period_s).items():
        if only and name not in only:
            continue
        for spread in Spread:
            flows = Traffic(fabric).voice(calls, path=spread)
            with flows.running():
                flows.go_on_for(_BEFORE_S)
                with inject(Faults(fabric), flows) as fault:
                    _last(fault, flaps_s if name == "flaps" else 0.0)
                flows.go_on_for(_AFTER_S)
            rows.append(Row(name, spread, measure_voice(fabric.lab, flows, [fault])))
            tell(rows[-1].line())
    return rows


def _last(fault: FaultScope, seconds: float) -> None:
    """Until it is over by itself."""
    over = threading.Event()
    fault.when_over(over.set)
    if not over.wait(seconds + 60):
        raise AssertionError(f"{fault.name} is not over")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.voice_paths", description=__doc__)
    parser.add_argument("--calls", type=int, default=4, help="at once [4]")
    parser.add_argument("--flaps", type=float, default=60.0, help=f"seconds of flapping at {PER_MINUTE} a minute [60]")
    arguments = parser.parse_args()
    print(HEADER, flush=True)
    try:
        with bring_up(Lab.parse(LAB)) as fabric:
            rows = run(fabric, arguments.calls, flaps_s=arguments.flaps, tell=lambda line: print(line, flush=True))
    except BedError as error:
        print(f"could not be carried out: {error}", file=sys.stderr)
        return 4
    wrong = [f"{row.fault}, {row.spread}: {line}" for row in rows for line in row.wrong]
    print("\n".join(wrong) or "no call failed, every packet accounted for")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
