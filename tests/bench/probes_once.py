"""Probe sender and C loop in turns over the same paths; prints the raw rounds as JSON.

Run in a user and a network namespace of its own. A path of three uSID switches on each of two planes, built for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics

from testbed.fabric.netns.syscalls import set_parent_death_signal
from tests.bench.load import Load
from tests.netns import probe_lab

RUN_ID = 0xBE7C4
PLANES = 2
EVS_PER_PLANE = 64
MODES = ("raw41", "header")

Round = dict[str, float]


def c_loop(program: str, lab: probe_lab.Lab, mode: str, options: argparse.Namespace, rate: float = 0) -> Round:
    """One run of the C loop in host a's namespace. With the probes' receiver absent the path would be cheaper."""
    receiver = probe_lab.Agent("receive", lab.receive_plan(RUN_ID + 1), 1)
    destinations = [":".join(lab.destination(plane)[at : at + 4] for at in range(0, 32, 4)) for plane in range(PLANES)]
    counts = (str(options.size), str(options.packets), str(rate))
    result: Round = json.loads(lab.a.run(program, mode, probe_lab.NIC_A, *counts, *destinations))
    receiver.end()
    return {"pps": result["packets"] / result["seconds"], "cpu_us": result["cpu_s"] / result["packets"] * 1e6}


def probes(lab: probe_lab.Lab, options: argparse.Namespace, rate: float = 0) -> Round:
    """One run of the probe sender, its receiver beside it."""
    flow = lab.flow(0, evs_per_plane=EVS_PER_PLANE, rate=rate, size=options.size, count=options.packets)
    sender, receiver = probe_lab.exchange(lab, lab.send_plan(RUN_ID, flow), options.packets)
    sent, arrived = sender.samples.counters(), receiver.samples.counters()
    stamps = sender.samples.sent()["t_ns"]
    return {
        "pps": (len(stamps) - 1) / float(stamps[-1] - stamps[0]) * 1e9,
        "cpu_us": sent["cpu_ns"] / len(stamps) / 1e3,
        "both_cpu_us": (sent["cpu_ns"] + arrived["cpu_ns"]) / max(arrived["received"], 1) / 1e3,
        "lost": sent["sent"] - arrived["received"],
        "receiver_drops": arrived["receiver_drops"],
        "behind_ms": sent["behind_ns_max"] / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help="the compiled C loop")
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    set_parent_death_signal()
    lab = probe_lab.Lab(PLANES, switches=3)
    unpaced: dict[str, list[Round]] = {mode: [] for mode in (*MODES, "probes")}
    paced: dict[str, list[Round]] = {"header": [], "probes": []}
    shares: dict[str, list[dict[str, float]]] = {"unpaced": [], "paced": []}
    for _ in range(options.rounds):
        load = Load()
        for mode in MODES:
            unpaced[mode].append(c_loop(options.program, lab, mode, options))
        unpaced["probes"].append(probes(lab, options))
        shares["unpaced"].append(dataclasses.asdict(load.share()))
    half = statistics.median(one["pps"] for one in unpaced["header"]) / 2
    for _ in range(options.rounds):
        load = Load()
        paced["header"].append(c_loop(options.program, lab, "header", options, half))
        paced["probes"].append(probes(lab, options, half))
        shares["paced"].append(dataclasses.asdict(load.share()))
    print(json.dumps({"half_pps": half, "unpaced": unpaced, "paced": paced, "shares": shares}))


if __name__ == "__main__":
    main()
