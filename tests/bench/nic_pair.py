"""Two software NICs on one fabric, a process each: goodput, packet rate, latency, and the cost of a packet by stage.

    python -m tests.bench.nic_pair [--lab reference] [--seconds 3] [--size 1048576] [--rate 20000] [--latency]

Figures are of this machine at this moment. A stage's processor time includes what the kernel does within its system
calls, which on veth links is all of the fabric's forwarding in the sender's `send`.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from testbed.errors import BedError
from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.lab import Lab
from testbed.mrc.datapath.nic import SoftNic, be_undisturbed
from testbed.mrc.datapath.plan import NicPlan
from testbed.mrc.datapath.stages import Stage
from testbed.mrc.memory import MemoryRegion
from testbed.mrc.nscc.tuning import nscc_for
from testbed.mrc.qp import QpAttributes
from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import Rows, Status
from testbed.mrc.settings import Settings
from testbed.traffic.mrc.content import Content
from tests.netns.mrc.nic_plans import plans

_PLAN, _IN, _OUT = 10, 11, 12
_WAIT_NS = 100_000_000
_STAGE, _STAGE_END = "mrc_stage_", "_ns"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nic_pair", description=__doc__)
    parser.add_argument("--lab", default="reference", help="a lab with two T0s [reference]")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to send [3]")
    parser.add_argument("--size", type=int, default=1 << 20, help="bytes of a message [1 MiB]")
    parser.add_argument("--depth", type=int, default=16, help="messages outstanding [16]")
    parser.add_argument("--qps", type=int, default=1, help="queue pairs [1]")
    parser.add_argument("--rate", type=float, default=0, help="packets/s to post, a message when due; 0: no limit [0]")
    parser.add_argument("--verify", action="store_true", help="compare each message at the receiver, byte for byte")
    parser.add_argument("--crc", choices=("zlib",), help="compute the ICRC with it even where isal is installed")
    parser.add_argument("--latency", action="store_true", help="write to and fro, one message at a time")
    parser.add_argument("--profile", metavar="FILE", help="profile both processes to FILE.send and FILE.receive")
    parser.add_argument("--role", choices=("send", "receive"), help=argparse.SUPPRESS)
    return parser


def main() -> int:
    options = _parser().parse_args()
    if options.role:
        return _agent(options)
    try:
        with bring_up(Lab.load(options.lab)) as fabric:
            _report(run(fabric, sys.argv[1:]), options)
    except BedError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _settings(lab: Lab) -> Settings:
    return Settings(nscc=nscc_for(lab.emulated_rate, lab.planes, lab.time_scale))


def pair_of(fabric: NetnsFabric) -> tuple[str, str]:
    """Two hosts on different T0s."""
    return "h0", f"h{fabric.lab.hosts_per_t0}"


def run(fabric: NetnsFabric, arguments: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Run both ends once; what ``send`` and ``receive`` found, each with its ``counters`` and ``cpu_ns``.

    ``arguments``: of the command line. Raises RuntimeError with what an end printed when it failed.
    """
    options = _parser().parse_args(arguments)
    hosts = pair_of(fabric)
    (site,) = fabric.agent_sites(hosts)
    namespaces = {host: site.namespace_fd(host) for host in hosts}
    made = plans(fabric.addresses, hosts, _settings(fabric.lab), namespaces=namespaces, timing=True)
    there, back = os.pipe(), os.pipe()
    pipes = {"send": (back[0], there[1]), "receive": (there[0], back[1])}
    processes = {}
    with ExitStack() as rest:
        for role, host in zip(("send", "receive"), hosts, strict=True):
            plan = os.memfd_create("plan")
            os.write(plan, made[host].to_json().encode())
            os.lseek(plan, 0, os.SEEK_SET)
            crc = ["env", f"TESTBED_CRC={options.crc}"] if options.crc else []
            argv = [*crc, sys.executable, "-m", "tests.bench.nic_pair", "--role", role, *arguments]
            fds = {_PLAN: plan, _IN: pipes[role][0], _OUT: pipes[role][1]}
            processes[role] = site.start(argv, fds=fds, log_name=role)
            rest.callback(processes[role].stop)
            for fd in fds.values():
                os.close(fd)
        found = {}
        for role, process in processes.items():
            if process.wait(options.seconds + 30):
                raise RuntimeError(f"{role}: {process.output()}")
            found[role] = json.loads(process.output().splitlines()[-1])
        return found


def _agent(options: argparse.Namespace) -> int:
    with open(_PLAN) as text:
        nic = SoftNic(NicPlan.from_json(text.read()))
    region = nic.register(max(options.size * options.depth, 1 << 12))
    # Memory that a NIC writes to is pinned; pages never written to are moreover all one to the reader's cache.
    region.data.fill(1)
    (peer,) = nic.plan.peers
    ours = [nic.create_qp(peer.name, regions=(region,)) for _ in range(options.qps)]
    for qp in ours:
        os.write(_OUT, f"{qp.attributes.to_json()}\n".encode())
    remotes = [QpAttributes.from_json(line) for line in _lines(options.qps)]
    for qp, remote in zip(ours, remotes, strict=True):
        nic.connect(qp, remote)
    os.set_blocking(_IN, False)
    nic.wake_on(_IN)
    be_undisturbed()
    profile = None
    if options.profile:
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
    nic.stages.end(Stage.OUTSIDE)
    before, began, cpu = nic.counters(), time.monotonic_ns(), time.process_time_ns()
    carry = _latency if options.latency else _throughput
    result = carry(nic, list(zip(ours, remotes, strict=True)), region, options)
    if profile is not None:
        profile.disable()
        profile.dump_stats(f"{options.profile}.{options.role}")
    elapsed = time.monotonic_ns() - began
    after = nic.counters()
    result |= {
        "elapsed_ns": elapsed,
        "cpu_ns": time.process_time_ns() - cpu,
        "counters": {name: value - before.get(name, 0) for name, value in after.items()},
    }
    os.close(_OUT)
    print(json.dumps(result))
    return 0


def _lines(count: int) -> Iterator[str]:
    with os.fdopen(os.dup(_IN)) as source:
        for _ in range(count):
            yield source.readline()


def _gone() -> bool:
    """Whether the other end has closed its pipe: it is done."""
    ready, _, _ = select.select([_IN], [], [], 0)
    return bool(ready) and os.read(_IN, 1) == b""


def _check(rows: Rows) -> None:
    bad = rows[rows["status"] != Status.SUCCESS]
    if len(bad):
        raise RuntimeError(f"{len(bad)} messages failed: {Status(int(bad['status'][0])).name}")


def _throughput(
    nic: SoftNic, qps: list[tuple[QueuePair, QpAttributes]], region: MemoryRegion, options: argparse.Namespace
) -> dict[str, Any]:
    size, pace = options.size, _Pace(options)
    content = Content(0, size) if options.verify else None
    if options.role == "receive":
        check = _Check(content, region, size) if content else None
        nic.on_messages(check)
        while not _gone():
            nic.run_once(_WAIT_NS)
        return {"verified": check.verified, "mismatches": check.mismatches} if check else {}
    table = nic.register(content.table) if content else None
    done, posted, last = 0, 0, 0
    free = deque((slot, *qps[slot % len(qps)]) for slot in range(options.depth))
    where = list(free)
    numbers = dict.fromkeys((qp.index for qp, _ in qps), 0)
    pace.begin()
    give_up = pace.until + 10_000_000_000
    while (now := time.monotonic_ns()) < give_up:
        while free and pace.due(posted, now):
            slot, qp, remote = free.popleft()
            to = remote.regions[0]
            source = region.va + slot * size
            if content and table:
                source = table.va + content.offset(qp.index, numbers[qp.index])
                numbers[qp.index] += 1
            nic.post_write(qp, slot, source, size, to.va + slot * size, to.rkey)
            posted += 1
        nic.run_once(_WAIT_NS if not free else pace.wait_ns(posted, now))
        rows = nic.completions()
        if len(rows):
            _check(rows)
            last = time.monotonic_ns()
            done += len(rows)
            free.extend(where[slot] for slot in rows["wr_id"].tolist())
        elif now >= pace.until and done == posted:
            break
    return {"messages": done, "posted": posted, "bytes": done * size, "sending_ns": last - pace.began}


class _Pace:
    """When messages are to be posted."""

    def __init__(self, options: argparse.Namespace) -> None:
        packets = -(-options.size // 4096)
        self._interval_ns = packets * 1e9 / options.rate if options.rate else 0.0
        self._lasts_ns = int(options.seconds * 1e9)
        self.began = self.until = 0

    def begin(self) -> None:
        self.began = time.monotonic_ns()
        self.until = self.began + self._lasts_ns

    def due(self, posted: int, now: int) -> bool:
        """Whether a message beyond those posted is to be posted now."""
        return now < self.until and now - self.began >= posted * self._interval_ns

    def wait_ns(self, posted: int, now: int) -> int:
        """How long until the next is due."""
        return min(_WAIT_NS, max(0, self.began + int(posted * self._interval_ns) - now))


class _Check:
    """Compares messages with what was sent."""

    def __init__(self, content: Content, region: MemoryRegion, size: int) -> None:
        self.verified = self.mismatches = 0
        self._content, self._region, self._size = content, region, size

    def __call__(self, rows: Rows) -> None:
        for qp, number, va in zip(rows["qp"].tolist(), rows["number"].tolist(), rows["va"].tolist(), strict=True):
            at = va - self._region.va
            if self._content.matches(qp, number, self._region.data[at : at + self._size]):
                self.verified += 1
            else:
                self.mismatches += 1


def _latency(
    nic: SoftNic, qps: list[tuple[QueuePair, QpAttributes]], region: MemoryRegion, options: argparse.Namespace
) -> dict[str, Any]:
    """2 bytes there, and when they are there 2 bytes back."""
    qp, remote = qps[0]
    to = remote.regions[0]
    arrived = 0

    def on_messages(rows: Rows) -> None:
        nonlocal arrived
        arrived += len(rows)

    def post() -> None:
        nic.post_write(qp, 0, region.va, 2, to.va + 2048, to.rkey)

    nic.on_messages(on_messages)
    if options.role == "receive":
        answered = 0
        while not _gone():
            nic.run_once(_WAIT_NS)
            while answered < arrived:
                answered += 1
                post()
            _check(nic.completions())
        return {}
    times = []
    until = time.monotonic() + options.seconds
    while time.monotonic() < until:
        before, seen = time.monotonic_ns(), arrived
        post()
        while arrived == seen and time.monotonic() < until + 10:
            nic.run_once(_WAIT_NS)
        times.append(time.monotonic_ns() - before)
        _check(nic.completions())
    return {"round_trips_ns": times}


def stages_us(result: dict[str, Any], packets: int) -> dict[str, float]:
    """Microseconds of processor time per packet, by stage."""
    return {
        name[len(_STAGE) : -len(_STAGE_END)]: value / packets / 1e3
        for name, value in result["counters"].items()
        if name.startswith(_STAGE)
    }


def packets_of(found: dict[str, dict[str, Any]]) -> int:
    """How many packets the receiver placed."""
    return max(int(found["receive"]["counters"]["mrc_packets_placed"]), 1)


def _report(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    if options.latency:
        times = sorted(found["send"]["round_trips_ns"])
        quantiles = {q: times[min(int(len(times) * q), len(times) - 1)] / 2e3 for q in (0.5, 0.9, 0.99)}
        text = ", ".join(f"p{q * 100:.0f} {value:.0f} us" for q, value in quantiles.items())
        print(f"2 bytes, half of a round trip: {text}, n={len(times)}")
    else:
        sent = found["send"]
        seconds = sent["sending_ns"] / 1e9
        packets = sent["messages"] * -(-options.size // 4096)
        print(
            f"{sent['messages']} messages of {options.size} bytes in {seconds:.2f} s: "
            f"{sent['bytes'] * 8 / seconds / 1e6:.0f} Mbit/s goodput, {packets / seconds:.0f} packets/s"
        )
    for role, result in found.items():
        counters = result["counters"]
        carried = max(counters["mrc_received"] if role == "receive" else counters["mrc_data_sent"], 1)
        print(
            f"{role}: {carried} packets, {result['cpu_ns'] / carried / 1e3:.2f} us of processor each, "
            f"{result['cpu_ns'] / result['elapsed_ns']:.2f} cores"
        )
        print(
            "   "
            + "  ".join(f"{name} {value:.2f}" for name, value in stages_us(result, carried).items())
            + "  us/packet"
        )
        shown = {
            name: value
            for name, value in counters.items()
            if value and not name.startswith(_STAGE) and name not in ("mrc_cpu_ns", "mrc_ring_frames")
        }
        print("   " + "  ".join(f"{name} {value}" for name, value in shown.items()))


if __name__ == "__main__":
    sys.exit(main())
