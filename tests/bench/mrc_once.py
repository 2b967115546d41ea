"""The software NIC, a bare C pair and scapy in turns over the paths of one pair of hosts; prints the rounds as JSON.

Without a limit of rate first, then the NIC and the C pair at one offered rate: half of what the slower one reached.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.fabric.netns.syscalls import set_parent_death_signal
from testbed.lab import Lab
from testbed.mrc.settings import Settings
from testbed.mrc.wire import icrc
from tests.bench import child, mrc_c, nic_pair
from tests.bench.load import Load
from tests.bench.softirqs import Softirqs, counted_apart
from tests.netns.mrc.nic_plans import plans

Round = dict[str, Any]
_MESSAGE = 1 << 20
_PACKETS = _MESSAGE // 4096


class Bench:
    """One fabric, and each of the things that are compared on it."""

    def __init__(self, fabric: NetnsFabric, directory: Path, program: Path | None, crc: str, seconds: float) -> None:
        self._fabric = fabric
        self._hosts = nic_pair.pair_of(fabric)
        self._program = program
        self._crc = ("--crc=zlib",) if crc == "zlib" else ()
        self._seconds = seconds
        self._paths, self._plan = directory / "paths", directory / "plan"
        plan = plans(fabric.addresses, self._hosts, Settings(), namespaces=dict.fromkeys(self._hosts))[self._hosts[0]]
        self._plan.write_text(plan.to_json())
        mrc_c.write_paths(plan, self._paths)
        self.evs = len(plan.peers[0].evs)

    def ours(self, *more: str, rate: float = 0) -> Round:
        """The software NIC, one queue pair."""
        softirqs = Softirqs()
        arguments = (f"--seconds={self._seconds}", f"--size={_MESSAGE}", f"--rate={rate}", *self._crc, *more)
        found = nic_pair.run(self._fabric, arguments)
        beyond = softirqs.spent_s()
        send, receive = found["send"], found["receive"]
        if receive.get("mismatches"):
            raise RuntimeError(f"{receive['mismatches']} messages did not arrive as they were sent")
        placed = nic_pair.packets_of(found)
        return {
            "pps": send["messages"] * _PACKETS / send["sending_ns"] * 1e9,
            "placed": placed,
            "retransmits": send["counters"]["mrc_retransmits"],
            "verified": receive.get("verified", 0),
            "send_us": send["cpu_ns"] / placed / 1e3,
            "receive_us": receive["cpu_ns"] / placed / 1e3,
            "beyond_us": beyond / placed * 1e6,
            "stages": {end: nic_pair.stages_us(found[end], placed) for end in ("send", "receive")},
        }

    def bare(self, receiver: str, rate: float = 0) -> Round:
        """The C pair."""
        assert self._program is not None
        softirqs = Softirqs()
        found = mrc_c.run(
            self._fabric,
            self._hosts,
            self._program,
            self._paths,
            receiver=receiver,
            seconds=self._seconds,
            rate=rate,
            burst=_PACKETS,
        )
        beyond, placed = softirqs.spent_s(), found["placed"]
        return {
            "pps": found["pps"],
            "placed": placed,
            "lost": found["sent"] - placed,
            "send_us": found["send_cpu_s"] / placed * 1e6,
            "receive_us": found["receive_cpu_s"] / placed * 1e6,
            "beyond_us": beyond / placed * 1e6,
        }

    def scapy(self) -> Round:
        """scapy's sender, nobody receiving."""
        argv = [sys.executable, "-m", "tests.bench.mrc_scapy", str(self._plan), f"--seconds={self._seconds}"]
        done = self._fabric.host(self._hosts[0]).run(argv, env=child.environment())
        found = json.loads(done.stdout)
        return {"pps": found["packets"] / found["seconds"], "placed": found["packets"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lab", default="reference")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    set_parent_death_signal()
    with TemporaryDirectory() as directory, bring_up(Lab.load(options.lab)) as fabric:
        programs = mrc_c.compiled(Path(directory))
        # Both sides compute with the same library, the fastest that both have.
        fastest = "zlib" if icrc.crc32 is zlib.crc32 else "isal"
        crc = fastest if fastest in programs or not programs else "zlib"
        program = programs.get(crc)
        bench = Bench(fabric, Path(directory), program, crc, options.seconds)
        rounds, shares = _unlimited(fabric, bench, options.rounds, bare=program is not None)
        document: dict[str, Any] = {
            "evs": bench.evs,
            "crc": {"both": crc, "ours": fastest, "bare": sorted(programs)},
            "softirqs_apart": counted_apart(),
            "unlimited": rounds,
            "shares": {"unlimited": shares},
        }
        if program is not None:
            receiver = max(mrc_c.RECEIVERS, key=lambda name: _median(rounds[name]))
            half = min(_median(rounds["ours"]), _median(rounds[receiver])) / 2
            rounds, shares = _taking_turns(
                fabric,
                options.rounds,
                {"ours": lambda: bench.ours(rate=half), "bare": lambda: bench.bare(receiver, half)},
            )
            document |= {"receiver": receiver, "offered": half, "paced": rounds}
            document["shares"]["paced"] = shares
    print(json.dumps(document))


def _unlimited(
    fabric: NetnsFabric, bench: Bench, count: int, *, bare: bool
) -> tuple[dict[str, list[Round]], list[Round]]:
    runs: dict[str, Callable[[], Round]] = {"ours": bench.ours, "verified": lambda: bench.ours("--verify")}
    if bare:
        runs |= {"ring": lambda: bench.bare("ring"), "raw": lambda: bench.bare("raw")}
    return _taking_turns(fabric, count, {**runs, "scapy": bench.scapy})


def _taking_turns(
    fabric: NetnsFabric, count: int, runs: dict[str, Callable[[], Round]]
) -> tuple[dict[str, list[Round]], list[Round]]:
    rounds: dict[str, list[Round]] = {name: [] for name in runs}
    shares = []
    for _ in range(count):
        load = Load([fabric.client.keeper_pid])
        for name, run in runs.items():
            rounds[name].append(run())
        shares.append(dataclasses.asdict(load.share([fabric.client.keeper_pid])))
    return rounds, shares


def _median(rounds: list[Round]) -> float:
    return float(statistics.median(one["pps"] for one in rounds))


if __name__ == "__main__":
    main()
