"""Voice soak: calls go on while switches, links, relays, their store and clients fail at random.

    python -m tests.soak.voice_soak --seconds 600 --seed 1

One workload after the other, each under the next path policy: two clients, two relays that share an address, a store,
a transceiver. Meanwhile a schedule of faults drawn from the seed happens to the fabric, and others to processes: relays
are killed, paused and started again, store and clients too, the transceiver is paused, the relays' address is moved. In
the end every call that was not its client's death has lived on, no session is stuck with a relay or the transceiver, no
packet is unexplained, and no process has grown. Exit code 1 when one of these does not hold, 4 when it could not be
carried out.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.errors import BedError, InfrastructureError
from testbed.experiment.voice import measure_voice
from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.fabric.netns.inside import processes
from testbed.fabric.netns.processes import NetnsProcess
from testbed.fabric.protocols import Process, Spread
from testbed.faults.catalogue import Faults
from testbed.faults.nemesis import Limits
from testbed.lab import Lab
from testbed.traffic.voice.calls import VoiceCalls
from testbed.traffic.voice.cast import Cast
from testbed.traffic.voice.places import METRICS_PORT, endpoint
from testbed.traffic.workloads import Traffic
from testbed.voice.rtplog import Step, Way, read

LAB = """
name: voice-soak
planes: 4
t0_per_plane: 5
t1_per_plane: 2
hosts_per_t0: 1
reboot:
  cold: {links_lost: 200 ms, tables_empty: 200 ms}
"""
CLIENTS, RELAYS, TRANSCEIVER = ("h0", "h1"), ("h2", "h3"), "h4"
CALLS = 4
#: At most two planes of four are hit at once.
LIMITS = Limits(at_once=2, whole_planes=2, gap_s=1.5, shortest_s=0.1, longest_s=1.5)
PART_S = 60.0
#: Memory is compared from here on: buffers and tables have then reached their size.
WARM_UP_S = 10.0
#: What a process may have grown from the first to the last third of a part.
GROWTH_BYTES = 12 << 20
_SAMPLE_S = 1.0
#: A relay forgets a client 30 s after its last datagram, a transceiver one that gives no consent for as long.
_FORGET_S = 75.0
_PACKETS = 25
_HEAR_S = 40.0


@dataclass
class Part:
    """What one workload came to."""

    spread: Spread
    seconds: float
    lines: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    growth: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class ProcessNemesis:
    """Something happens to one process at a time, drawn from a random generator."""

    def __init__(self, fabric: NetnsFabric, calls: VoiceCalls, rng: random.Random, seen: Counter[str]) -> None:
        self._faults = Faults(fabric)
        self._calls, self._rng, self._seen = calls, rng, seen
        #: Calls whose client was killed.
        self.killed_calls = 0

    def act(self) -> None:
        """One of them, to its end."""
        calls, rng = self._calls, self._rng
        relay = rng.choice(list(calls.relays.values()))
        acts: list[tuple[str, Callable[[], None]]] = [
            ("relay killed", lambda: self._kill(relay)),
            ("relay paused", lambda: self._pause(relay)),
            ("relay restarted", lambda: self._restart(relay)),
            ("store killed", lambda: self._kill(calls.store)),
            ("transceiver paused", lambda: self._pause(calls.transceiver)),
            ("address moved", self._move),
            ("client killed", self._kill_client),
        ]
        name, act = rng.choice(acts)
        self._seen[name] += 1
        act()

    def _kill(self, process: Process) -> None:
        with self._faults.kill(process) as fault:
            fault.wait("killed")
            process.wait(10)
            time.sleep(self._rng.uniform(0, 1))  # How long it is gone.
        process.restart()

    def _kill_client(self) -> None:
        number = self._rng.randrange(len(self._calls.clients))
        self.killed_calls += self._calls.calls[number]
        self._kill(self._calls.clients[number])

    def _pause(self, process: Process) -> None:
        with self._faults.pause(process) as fault:
            fault.wait("paused")
            time.sleep(self._rng.uniform(0.1, 1.5))  # How long it stands still.

    def _restart(self, process: Process) -> None:
        with self._faults.restart(process, down=self._rng.uniform(0.01, 0.5)) as fault:
            fault.wait("ready", 60)

    def _move(self) -> None:
        with self._faults.move_address(self._calls.address, RELAYS[1]) as fault:
            fault.wait("moved")
            time.sleep(self._rng.uniform(0.5, 3))  # How long it is away.


def soak(seconds: float, seed: int, *, tell: Callable[[str], None] = lambda _: None) -> list[Part]:
    """Run it; every part with what was wrong in it."""
    rng = random.Random(seed)
    parts: list[Part] = []
    spreads = [Spread.SPRAYED, Spread.HASHED, Spread.PINNED]
    with bring_up(Lab.parse(LAB)) as fabric:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and (not parts or left > PART_S / 2):
            part = Part(spreads[len(parts) % len(spreads)], min(PART_S, left))
            _part(fabric, part, rng)
            parts.append(part)
            happened = ", ".join(f"{count} {kind}" for kind, count in sorted(part.faults.items()))
            grown = ", ".join(f"{name} {size / 1024:+.0f} KiB" for name, size in part.growth.items()) or "-"
            tell(f"{part.spread}, {part.seconds:.0f} s; {happened}\n  memory: {grown}")
            for line in (*part.lines, *part.wrong):
                tell(f"  {line}")
    return parts


def _part(fabric: NetnsFabric, part: Part, rng: random.Random) -> None:
    calls = Traffic(fabric).voice(
        CALLS, path=part.spread, clients=CLIENTS, relays=RELAYS, transceiver=TRANSCEIVER, store=RELAYS[1]
    )
    nemesis = ProcessNemesis(fabric, calls, rng, part.faults)
    memory: dict[str, list[int]] = {}
    with calls.running(before_the_end=lambda cast: _nothing_stuck(fabric, cast, part.wrong)):
        playing = Faults(fabric).nemesis(part.seconds, seed=rng.randrange(1 << 30), limits=LIMITS)
        part.faults.update(planned.spec.kind for planned in playing.schedule.events)
        with playing:
            _live_through(fabric, calls, nemesis, part.seconds, rng, memory)
        # Everything is whole again, and everybody is heard.
        _everybody_hears(calls)
    measured = measure_voice(fabric.lab, calls, playing.faults)
    part.lines = measured.table()
    part.growth = _growth(memory)
    failed = int(measured.value("calls_failed"))
    if failed != nemesis.killed_calls:
        part.wrong.append(f"{failed} calls failed, {nemesis.killed_calls} by the death of their client")
        part.wrong += measured.contradictions
    unexplained = measured.figure("unexplained_packets")
    if unexplained.value != 0:
        part.wrong.append(f"the ledger: {unexplained.value} unexplained, {unexplained.note}")
    part.wrong += [f"{name} grew by {size / 1024:.0f} KiB" for name, size in part.growth.items() if size > GROWTH_BYTES]
    part.wrong += [f"not as planned afterwards: {line}" for line in fabric.check()[:3]]


def _live_through(
    fabric: NetnsFabric,
    calls: VoiceCalls,
    nemesis: ProcessNemesis,
    seconds: float,
    rng: random.Random,
    memory: dict[str, list[int]],
) -> None:
    began = time.monotonic()
    with _sampling(fabric, memory, began) as sample:
        while time.monotonic() < began + seconds:
            calls.go_on_for(rng.uniform(0.5, 2))
            sample()
            nemesis.act()
            sample()


@contextmanager
def _sampling(fabric: NetnsFabric, memory: dict[str, list[int]], began: float) -> Iterator[Callable[[], None]]:
    last = 0.0

    def sample() -> None:
        nonlocal last
        now = time.monotonic()
        if now < began + WARM_UP_S or now < last + _SAMPLE_S:
            return
        last = now
        for inside in processes(fabric.client.keeper_pid, fabric.plan.namespaces):
            words = [Path(word).name for word in inside.argv]
            names = [word for word in words if word in ("relay", "transceiver", "backend", "voice")]
            # A process that was started again begins anew, under its own number.
            if names:
                memory.setdefault(f"{names[0]} {inside.pid}", []).append(_anonymous(inside.pid))

    yield sample


def _anonymous(pid: int) -> int:
    """Bytes of a process's own, logs that it has mapped left out."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")), 0)


def _growth(memory: dict[str, list[int]]) -> dict[str, int]:
    """Process → what it grew from the first to the last third of its time; those that lived long enough."""
    grown = {}
    for name, values in memory.items():
        third = len(values) // 3
        if third >= 4:
            grown[name] = int(statistics.median(values[-third:]) - statistics.median(values[:third]))
    return grown


def _everybody_hears(calls: VoiceCalls) -> None:
    """Wait until every call that is not over receives RTP. Raises InfrastructureError."""
    before = _received(calls)
    deadline = time.monotonic() + _HEAR_S
    while deaf := _deaf(before, _received(calls)):
        if time.monotonic() > deadline:
            raise InfrastructureError(
                f"not every call hears again within {_HEAR_S:.0f} s after the last fault", found=", ".join(deaf)
            )
        time.sleep(0.1)  # The poll interval of a wait with a deadline.


def _deaf(before: dict[tuple[str, int], int], now: dict[tuple[str, int], int]) -> list[str]:
    """Calls that have not received enough since; those that are over are told by their end."""
    return [f"{key[0]} call {key[1]}" for key, count in now.items() if count < before.get(key, 0) + _PACKETS]


def _received(calls: VoiceCalls) -> dict[tuple[str, int], int]:
    assert calls._cast is not None
    found = {}
    living = {recorded.name: recorded for recorded in read(calls._cast.logs[0])}
    # Of each client the process that runs now: others were killed.
    pids = {process.pid for process in calls.clients if isinstance(process, NetnsProcess)}
    for name in (name for name in living if int(name.partition("-")[0]) in pids):
        recorded = living[name]
        over = set(recorded.events["call"][recorded.events["step"] == Step.ENDED].tolist())
        for call in set(recorded.events["call"].tolist()) - over:
            rows = recorded.packets[(recorded.packets["call"] == call) & (recorded.packets["way"] == Way.RECEIVED)]
            found[name, call] = len(rows)
    return found


def _nothing_stuck(fabric: NetnsFabric, cast: Cast, wrong: list[str]) -> None:
    """Wait until nobody knows of a call any more."""
    deadline = time.monotonic() + _FORGET_S
    while left := _left(fabric, cast):
        if time.monotonic() > deadline:
            wrong.append(
                f"stuck after {_FORGET_S:.0f} s: " + ", ".join(f"{name} {count}" for name, count in left.items())
            )
            return
        time.sleep(0.5)  # The poll interval of a wait with a deadline.


def _left(fabric: NetnsFabric, cast: Cast) -> dict[str, int]:
    """Who still has sessions or calls, and how many."""
    left = {}
    for host in cast.relays:
        told = fabric.host(host).run([sys.executable, "-m", "testbed.cli", "relay", "status", "--json"]).stdout
        left[f"sessions of {host}"] = sum(worker["sessions"] for each in json.loads(told) for worker in each["workers"])
    url = f"http://{endpoint(fabric.addresses.nic_address(TRANSCEIVER), METRICS_PORT)}/metrics"
    program = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=10).read().decode())"
    text = fabric.host(TRANSCEIVER).run([sys.executable, "-c", program]).stdout
    live = [line for line in text.splitlines() if line.startswith("testbed_transceiver_calls{")]
    left["calls of the transceiver"] = int(sum(float(line.rpartition(" ")[2]) for line in live)) if live else 1
    return {name: count for name, count in left.items() if count}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.voice_soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long [600]")
    parser.add_argument("--seed", type=int, default=1, help="of faults [1]")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        parts = soak(arguments.seconds, arguments.seed, tell=lambda line: print(line, flush=True))
    except BedError as error:
        print(f"could not be carried out: {error}", file=sys.stderr)
        return 4
    wrong = [part for part in parts if part.wrong]
    print(f"{time.monotonic() - began:.0f} s, {sum(sum(part.faults.values()) for part in parts)} faults")
    print("no call lost, nothing stuck, memory flat" if not wrong else f"{len(wrong)} of {len(parts)} parts wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
