"""How near the probe sender comes to a bare C sendmmsg loop on the same path, in the same run.

``python tests/bench/bench_probes.py [--size 1000] [--packets 100000] [--rounds 5]``: no root. A path of three
uSID switches on each of two planes; probe sender and C loop take turns, so that both see the same machine, and ratios
are taken within each turn. Prints one JSON object: packets/s, ratio to C (median, smallest and largest of the
rounds), CPU per packet unpaced and at half of the rate, and what the receiver lost at half rate.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
os.environ["PYTHONPATH"] = str(HERE.parents[1])  # for the agents

from tests.netns import probe_lab as lab_module  # noqa: E402

RUN_ID = 0xBE7C4
PLANES = 2
EVS_PER_PLANE = 64


def c_loop(program: str, lab: lab_module.Lab, mode: str, size: int, packets: int, rate: float = 0) -> dict[str, float]:
    """One run of the C loop in host a's namespace."""
    destinations = [":".join(lab.destination(plane)[at : at + 4] for at in range(0, 32, 4)) for plane in range(PLANES)]
    text = lab.a.run(program, mode, lab_module.NIC_A, str(size), str(packets), str(rate), *destinations)
    result: dict[str, float] = json.loads(text)
    return {"pps": result["packets"] / result["seconds"], "cpu_us": result["cpu_s"] / result["packets"] * 1e6}


def probes(lab: lab_module.Lab, size: int, packets: int, rate: float = 0) -> dict[str, float]:
    """One run of the probe sender, its receiver beside it."""
    flow = lab.flow(0, evs_per_plane=EVS_PER_PLANE, rate=rate, size=size, count=packets)
    sender, receiver = lab_module.exchange(lab, lab.send_plan(RUN_ID, flow), packets)
    sent, arrived = sender.samples.counters(), receiver.samples.counters()
    stamps = sender.samples.sent()["t_ns"]
    return {
        "pps": (len(stamps) - 1) / float(stamps[-1] - stamps[0]) * 1e9,
        "cpu_us": sent["cpu_ns"] / len(stamps) / 1e3,
        "receiver_cpu_us": arrived["cpu_ns"] / max(arrived["received"], 1) / 1e3,
        "lost": sent["sent"] - arrived["received"],
        "receiver_drops": arrived["receiver_drops"],
        "late": sent["late"],
        "behind_ms": sent["behind_ns_max"] / 1e6,
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def compare(program: str, lab: lab_module.Lab, options: argparse.Namespace) -> dict[str, object]:
    """Alternate the two, unpaced and then at half of the C loop's rate."""
    size, packets = options.size, options.packets
    c_runs: dict[str, list[dict[str, float]]] = {"raw41": [], "header": []}
    ours = []
    for _ in range(options.rounds):
        # With the receiver of the probes absent the path would be cheaper: the C loop gets one, too.
        receiver = lab_module.Agent("receive", lab.receive_plan(RUN_ID + 1), 1)
        for mode, runs in c_runs.items():
            runs.append(c_loop(program, lab, mode, size, packets))
        receiver.end()
        ours.append(probes(lab, size, packets))
    half = statistics.median(run["pps"] for run in c_runs["header"]) / 2
    paced_c, paced = [], []
    for _ in range(options.rounds):
        receiver = lab_module.Agent("receive", lab.receive_plan(RUN_ID + 1), 1)
        paced_c.append(c_loop(program, lab, "header", size, packets, half))
        receiver.end()
        paced.append(probes(lab, size, packets, half))
    best = [max(a["pps"], b["pps"]) for a, b in zip(c_runs["raw41"], c_runs["header"], strict=True)]
    return {
        "size": size,
        "packets": packets,
        "rounds": options.rounds,
        "c_raw41_pps": spread([run["pps"] for run in c_runs["raw41"]]),
        "c_header_pps": spread([run["pps"] for run in c_runs["header"]]),
        "probe_pps": spread([run["pps"] for run in ours]),
        "ratio_to_best_c": spread([run["pps"] / c for run, c in zip(ours, best, strict=True)]),
        "unpaced_cpu_us": {
            "c": spread([run["cpu_us"] for run in c_runs["header"]]),
            "probe": spread([run["cpu_us"] for run in ours]),
            "receiver": spread([run["receiver_cpu_us"] for run in ours]),
        },
        "unpaced_lost": sum(run["lost"] for run in ours),
        "unpaced_receiver_drops": sum(run["receiver_drops"] for run in ours),
        "half_rate_pps": half,
        "half_rate_reached_pps": spread([run["pps"] for run in paced]),
        "half_rate_cpu_us": {
            "c": spread([run["cpu_us"] for run in paced_c]),
            "probe": spread([run["cpu_us"] for run in paced]),
            "receiver": spread([run["receiver_cpu_us"] for run in paced]),
        },
        "half_rate_lost": sum(run["lost"] for run in paced),
        "half_rate_receiver_drops": sum(run["receiver_drops"] for run in paced),
        "half_rate_late": sum(run["late"] for run in paced),
        "half_rate_behind_ms_max": max(run["behind_ms"] for run in paced),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        print(json.dumps(compare(options.program, lab_module.Lab(PLANES, switches=3), options), indent=1))
        return 0
    compiler = shutil.which("cc")
    if compiler is None:
        print("no C compiler (cc): there is nothing to compare with", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as directory:
        program = f"{directory}/sendmmsg_probe"
        subprocess.run([compiler, "-O2", "-Wall", "-o", program, str(HERE / "c" / "sendmmsg_probe.c")], check=True)
        command = ["unshare", "--user", "--map-root-user", "--net", "--fork", "--kill-child", sys.executable, __file__]
        return subprocess.run([*command, *sys.argv[1:], "--program", program], check=False, timeout=600).returncode


if __name__ == "__main__":
    sys.exit(main())
