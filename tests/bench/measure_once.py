"""How long all figures of ten million packets take, and how much memory; prints JSON.

Eight flows sprayed over 8 planes of 16 EVs each, with loss, duplicates and reordering.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import time

import numpy as np

from testbed.fabric.netns.syscalls import set_parent_death_signal
from testbed.measure.dead import lost_in_windows
from testbed.measure.match import match
from testbed.measure.reorder import reordering
from testbed.measure.streams import Level, streams
from testbed.measure.summary import summarise
from testbed.measure.timeline import timeline
from testbed.samples import ARRIVAL, SENT, Samples
from tests.bench.load import Load

FLOWS, PLANES, EVS = 8, 8, 128


def make(packets: int) -> Samples:
    """Samples of ``packets`` packets, in the order offered, flows interleaved."""
    random = np.random.default_rng(1)
    sent = np.zeros(packets, dtype=SENT)
    row = np.arange(packets)
    sent["flow"] = row % FLOWS
    sent["seq"] = row // FLOWS
    sent["ev"] = sent["seq"] % EVS
    sent["plane"] = sent["ev"] % PLANES
    sent["t_ns"] = 1_700_000_000_000_000_000 + row * 1000
    kept = np.flatnonzero(random.random(packets) > 0.001)
    twice = random.choice(kept, packets // 1000)
    rows = np.concatenate([kept, twice])
    at = sent["t_ns"][rows] + random.gamma(4, 20_000, rows.size).astype(np.int64)
    order = np.argsort(at)
    arrivals = np.zeros(rows.size, dtype=ARRIVAL)
    for name in ("seq", "flow", "ev", "plane"):
        arrivals[name] = sent[name][rows[order]]
    arrivals["t_ns"] = at[order]
    return Samples(tuple(f"h{i}>h{i + 8}" for i in range(FLOWS)), sent, arrivals, 1_000_000_000)


def main() -> None:
    """Print the time of each step, and the largest memory by its end, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=10_000_000)
    options = parser.parse_args()
    set_parent_death_signal()
    samples = make(options.packets)
    laps: dict[str, float] = {}
    peaks = {"samples made": peak_mb()}
    load = Load()
    clock = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        laps[what] = now - clock
        peaks[what] = peak_mb()
        clock = now

    figures = summarise(samples, payload_bytes=1024)
    lap("all figures")
    matched = match(samples)
    lap("match")
    order = reordering(streams(matched, Level.FLOW))
    lap("reordering")
    timeline(matched, order, window_ns=10_000_000, payload_bytes=1024)
    lap("timeline")
    lost_in_windows(streams(matched, Level.EV), [])
    lap("dead windows")
    share = dataclasses.asdict(load.share())
    print(json.dumps({"laps_s": laps, "peaks_mb": peaks, "figures": len(figures), "share": share}))


def peak_mb() -> int:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
