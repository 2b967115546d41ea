"""Two software NICs on one fabric, a process each: goodput, packet rate, latency, and the cost of a packet by stage.

    python -m tests.bench.nic_pair [--lab reference] [--seconds 3] [--size 1048576] [--latency]

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
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from testbed.errors import BedError
from testbed.fabric.netns.fabric import NetnsFabric, bring_up
from testbed.lab import Lab
from testbed.mrc.datapath.nic import SoftNic, be_undisturbed
from testbed.mrc.datapath.plan import NicPlan
from testbed.mrc.datapath.stages import Stage
from testbed.mrc.nscc.tuning import nscc_for
from testbed.mrc.qp import QpAttributes
from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import Rows, Status
from testbed.mrc.settings import Settings
from tests.netns.mrc.nic_plans import plans

_PLAN, _IN, _OUT = 10, 11, 12
_WAIT_NS = 100_000_000
_STAGE, _STAGE_END = "mrc_stage_", "_ns"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.nic_pair", description=__doc__)
    parser.add_argument("--lab", default="reference", help="a lab with two T0s [reference]")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to send [3]")
    parser.add_argument("--size", type=int, default=1 << 20, help="bytes of a message [1 MiB]")
    parser.add_argument("--depth", type=int, default=16, help="messages outstanding [16]")
    parser.add_argument("--qps", type=int, default=1, help="queue pairs [1]")
    parser.add_argument("--latency", action="store_true", help="write to and fro, one message at a time")
    parser.add_argument("--profile", metavar="FILE", help="profile both processes to FILE.send and FILE.receive")
    parser.add_argument("--role", choices=("send", "receive"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        return _agent(options)
    try:
        with bring_up(Lab.load(options.lab)) as fabric:
            _report(_run(fabric, options), options)
    except BedError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _settings(lab: Lab) -> Settings:
    return Settings(nscc=nscc_for(lab.emulated_rate, lab.planes, lab.time_scale))


def _run(fabric: NetnsFabric, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    hosts = ("h0", f"h{fabric.lab.hosts_per_t0}")  # on different T0s
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
            argv = [sys.executable, "-m", "tests.bench.nic_pair", "--role", role, *sys.argv[1:]]
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
    run = _latency if options.latency else _throughput
    result = run(nic, list(zip(ours, remotes, strict=True)), region.va, options)
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
    nic: SoftNic, qps: list[tuple[QueuePair, QpAttributes]], source: int, options: argparse.Namespace
) -> dict[str, Any]:
    if options.role == "receive":
        while not _gone():
            nic.run_once(_WAIT_NS)
        return {}
    size, done, posted, last = options.size, 0, 0, 0
    began = time.monotonic_ns()
    until = began + int(options.seconds * 1e9)
    free = deque((slot, *qps[slot % len(qps)]) for slot in range(options.depth))
    where = list(free)
    give_up = until + 10_000_000_000
    while (now := time.monotonic_ns()) < give_up:
        while free and now < until:
            slot, qp, remote = free.popleft()
            to = remote.regions[0]
            nic.post_write(qp, slot, source + slot * size, size, to.va + slot * size, to.rkey)
            posted += 1
        nic.run_once(_WAIT_NS)
        rows = nic.completions()
        if len(rows):
            _check(rows)
            last = time.monotonic_ns()
            done += len(rows)
            free.extend(where[slot] for slot in rows["wr_id"].tolist())
        elif now >= until and done == posted:
            break
    return {"messages": done, "posted": posted, "bytes": done * size, "sending_ns": last - began}


def _latency(
    nic: SoftNic, qps: list[tuple[QueuePair, QpAttributes]], source: int, options: argparse.Namespace
) -> dict[str, Any]:
    """2 bytes there, and when they are there 2 bytes back."""
    qp, remote = qps[0]
    to = remote.regions[0]
    arrived = 0

    def on_messages(rows: Rows) -> None:
        nonlocal arrived
        arrived += len(rows)

    def post() -> None:
        nic.post_write(qp, 0, source, 2, to.va + 2048, to.rkey)

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
        stages = {
            name[len(_STAGE) : -len(_STAGE_END)]: value for name, value in counters.items() if name.startswith(_STAGE)
        }
        print(
            "   " + "  ".join(f"{name} {value / carried / 1e3:.2f}" for name, value in stages.items()) + "  us/packet"
        )
        shown = {
            name: value
            for name, value in counters.items()
            if value and not name.startswith(_STAGE) and name not in ("mrc_cpu_ns", "mrc_ring_frames")
        }
        print("   " + "  ".join(f"{name} {value}" for name, value in shown.items()))


if __name__ == "__main__":
    sys.exit(main())
