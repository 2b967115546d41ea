"""What test_probe_engine.py runs inside a user namespace; prints one JSON object per scenario."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

import numpy as np

from testbed.errors import InfrastructureError
from testbed.traffic.probes.plan import Port, ReceiveHost, ReceivePlan
from testbed.traffic.probes.shared import State
from tests.netns.probe_lab import Agent, Lab, exchange, summary, until

RUN_ID = 0x5EED0001


def sent_more_than(count: int, sender: Agent) -> bool:
    return sender.samples.counters()["sent"] > count


def matched(sender: Agent, receiver: Agent) -> dict[str, Any]:
    """Packets of both sides joined by flow and sequence number."""
    sent, arrived = sender.samples.sent(), receiver.samples.arrivals()
    accepted = sent[sent["status"] == 0]
    by_sent, by_arrival = (np.sort(rows, order=["flow", "seq"]) for rows in (accepted, arrived))
    same = {name: bool(np.array_equal(by_sent[name], by_arrival[name])) for name in ("flow", "seq", "ev", "plane")}
    delay = by_arrival["t_ns"] - by_sent["t_ns"] if same["seq"] else np.zeros(1)
    counters = sender.samples.counters()
    return {
        "same": same,
        "sent": counters,
        "received": receiver.samples.counters(),
        "rows": len(sent),
        "statuses": {int(code): int((sent["status"] == code).sum()) for code in np.unique(sent["status"])},
        "refused_planes": sorted({int(plane) for plane in sent["plane"][sent["status"] > 0]}),
        "delay_ns": [int(delay.min()), int(np.median(delay))],
        "states": [sender.samples.state.name, receiver.samples.state.name],
    }


def paced(lab: Lab) -> dict[str, Any]:
    flows = [
        lab.flow(number, evs_per_plane=4, rate=1000, size=size, count=500) for number, size in ((0, 156), (1, 1500))
    ]
    sender, receiver = exchange(lab, lab.send_plan(RUN_ID, *flows, lab.back(2, rate=1000, size=300, count=500)), 2000)
    sent = sender.samples.sent()
    own = sent[sent["flow"] == 0]
    off = own["t_ns"] - own["t_ns"][0] - own["seq"].astype(np.int64) * 1_000_000
    return {
        **matched(sender, receiver),
        "off_schedule_ns_median": int(np.median(np.abs(off))),
        "alone": int((np.diff(np.unique(own["t_ns"])) > 500_000).sum()),
    }


def unpaced(lab: Lab) -> dict[str, Any]:
    flow = lab.flow(0, evs_per_plane=16, rate=0, size=1000, count=20_000)
    return matched(*exchange(lab, lab.send_plan(RUN_ID, flow), 20_000))


def duration(lab: Lab) -> dict[str, Any]:
    flow = lab.flow(0, evs_per_plane=1, rate=2000, size=156)
    return matched(*exchange(lab, lab.send_plan(RUN_ID, flow, duration_ns=250_000_000), 2000))


def full(lab: Lab) -> dict[str, Any]:
    flow = lab.flow(0, evs_per_plane=1, rate=0, size=156, count=500)
    return matched(*exchange(lab, lab.send_plan(RUN_ID, flow), 100))


def other_runs_and_ports(lab: Lab) -> dict[str, Any]:
    foreign = Agent("receive", lab.receive_plan(RUN_ID + 1), 100)
    one_plane = Agent("receive", lab.receive_plan(RUN_ID, planes=1), 1000)
    sender = Agent("send", lab.send_plan(RUN_ID, lab.flow(0, evs_per_plane=1, rate=0, size=156, count=200)), 200)
    sender.start()
    sender.wait()
    codes = [foreign.end(), one_plane.end()]
    return {
        "codes": codes,
        "foreign": foreign.samples.counters(),
        "one_plane": one_plane.samples.counters(),
        "planes": sorted({int(plane) for plane in one_plane.samples.arrivals()["plane"]}),
    }


def stopping(lab: Lab) -> dict[str, Any]:
    """An endless sender ends by command, by the end of its control, and by SIGTERM; also before it started."""
    codes, rows = [], []
    for how in ("stop", "end", "terminate", "never started"):
        sender = Agent("send", lab.send_plan(RUN_ID, lab.flow(0, evs_per_plane=1, rate=0, size=156)), 10_000)
        if how != "never started":
            sender.start()
            until(partial(sent_more_than, 100, sender), "100 packets sent")
        if how == "stop":
            sender.tell("stop")
        elif how == "terminate":
            sender.process.terminate()
        codes.append(sender.wait() if how in ("stop", "terminate") else sender.end())
        rows.append(len(sender.samples.sent()))
        assert sender.samples.state is State.FINISHED
    receiver = Agent("receive", lab.receive_plan(RUN_ID), 10)
    receiver.process.terminate()
    return {"codes": [*codes, receiver.wait()], "rows": rows}


def delayed_start(lab: Lab) -> dict[str, Any]:
    sender = Agent("send", lab.send_plan(RUN_ID, lab.flow(0, evs_per_plane=1, rate=1000, size=156, count=3)), 10)
    start = time.time_ns() + 300_000_000
    sender.start(start)
    sender.wait()
    return {"first_after_start_ns": int(sender.samples.sent()["t_ns"][0]) - start}


def low_rate_latency(lab: Lab) -> dict[str, Any]:
    """How soon after its arrival a lone packet shows in the samples."""
    receiver = Agent("receive", lab.receive_plan(RUN_ID), 10)
    sender = Agent("send", lab.send_plan(RUN_ID, lab.flow(0, evs_per_plane=1, rate=1, size=156, count=1)), 10)
    sender.start()
    until(lambda: len(receiver.samples.arrivals()) > 0, "one packet received")
    shown = time.time_ns() - int(receiver.samples.arrivals()["t_ns"][0])
    sender.wait()
    receiver.end()
    return {"shown_after_ns": shown}


def failures(lab: Lab) -> dict[str, Any]:
    told = []
    for host in (ReceiveHost("b", (Port(0, "p77"),), lab.b.fd), ReceiveHost("b", (Port(0, "p0"),), 0)):
        try:
            Agent("receive", ReceivePlan(RUN_ID, (host,)), 10)
        except InfrastructureError as error:
            told.append(str(error))
    return {"told": told}


def shape(lab: Lab, verb: str, *, rate: str, burst: int, limit: int) -> None:
    """Give port p0 of host a a token bucket queue of ``limit`` bytes."""
    queue = f"tc qdisc {verb} dev p0 root tbf rate {rate} burst {burst} limit {limit}"
    lab.a.run(*queue.split())


def full_queue(lab: Lab) -> dict[str, Any] | None:
    """A port's own queue overflows: its drops are refusals, and nothing else is lost."""
    try:
        shape(lab, "add", rate="20mbit", burst=3000, limit=30_000)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return None
    flow = lab.flow(0, evs_per_plane=2, rate=0, size=1000, count=2000)
    result = matched(*exchange(lab, lab.send_plan(RUN_ID, flow), 2000))
    lab.a.run("tc", "qdisc", "del", "dev", "p0", "root")
    return result


def slow_queue(lab: Lab) -> dict[str, Any] | None:
    """A queue that holds more than the socket may: the sender waits for it; stopped meanwhile, it ends."""
    try:
        lab.a.run(
            "tc",
            "qdisc",
            "add",
            "dev",
            "p0",
            "root",
            "tbf",
            *["rate", "400mbit", "burst", "100000", "limit", "50000000"],
        )
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return None
    flow = lab.flow(0, evs_per_plane=1, rate=0, size=8000, count=4000)
    result = matched(*exchange(lab, lab.send_plan(RUN_ID, flow), 4000))
    lab.a.run(
        "tc", "qdisc", "change", "dev", "p0", "root", "tbf", *["rate", "8kbit", "burst", "9000", "limit", "50000000"]
    )
    sender = Agent("send", lab.send_plan(RUN_ID, lab.flow(0, evs_per_plane=1, rate=0, size=8000)), 10_000)
    sender.start()
    until(partial(blocked, sender), "a sender that waits for its socket")
    asked = time.monotonic()
    sender.tell("stop")
    result["stop_code"] = sender.wait()
    result["stop_s"] = time.monotonic() - asked
    lab.a.run("tc", "qdisc", "del", "dev", "p0", "root")
    return result


def blocked(sender: Agent) -> bool:
    return sender.samples.counters()["blocked"] > 0


def port_down(lab: Lab) -> dict[str, Any]:
    """Last: taking the port down also takes its routes."""
    lab.a.ip("link set p1 down")
    flow = lab.flow(0, evs_per_plane=4, rate=0, size=156, count=800)
    return matched(*exchange(lab, lab.send_plan(RUN_ID, flow), 800))


def icmp_errors(lab: Lab) -> dict[str, Any]:
    """ICMPv6 errors the receiving host sends while probes arrive."""
    before = _errors_sent(lab)
    exchange(lab, lab.send_plan(RUN_ID, lab.flow(0, evs_per_plane=1, rate=1000, size=156, count=50)), 100)
    return {name: after - before[name] for name, after in _errors_sent(lab).items()}


def _errors_sent(lab: Lab) -> dict[str, int]:
    counters = dict(line.split() for line in lab.b.run("cat", "/proc/net/snmp6").splitlines())
    return {name: int(counters[name]) for name in ("Icmp6OutParmProblems", "Icmp6OutDestUnreachs")}


if __name__ == "__main__":
    the_lab = Lab(planes=2)
    for scenario in (
        paced,
        unpaced,
        duration,
        full,
        other_runs_and_ports,
        stopping,
        delayed_start,
        low_rate_latency,
        failures,
        full_queue,
        slow_queue,
        icmp_errors,
        port_down,
    ):
        summary(**{scenario.__name__: scenario(the_lab)})
