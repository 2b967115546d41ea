"""A run as the testbed would record it: a permutation of flows sprayed over all paths while a T1 reboots.

The packets are drawn at random from a seed; every figure is then computed from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.lab import Lab
from testbed.measure.distributions import distributions
from testbed.measure.flowseries import count_flows, with_flows
from testbed.measure.match import match
from testbed.measure.provenance import machine_here, versions_here
from testbed.measure.result import Result, created_from_ns
from testbed.measure.result_parts import (
    ArtefactRecord,
    ClockRecord,
    DropRecord,
    FaultRecord,
    FigureRecord,
    JudgementRecord,
    LimitRecord,
    PressureRecord,
    Verdict,
    event_records,
    figure_records,
    lab_record,
)
from testbed.measure.samplefile import save_samples
from testbed.measure.series import TimelineRecord
from testbed.measure.timeline import Timeline
from testbed.pressure import PressureReading
from testbed.record import ClockReading, Event, Figure
from testbed.samples import ARRIVAL, SENT, Samples

I64 = npt.NDArray[np.int64]
MS = 1_000_000
T0 = 1_760_000_000_000_000_000
PAYLOAD = 4096
#: The reboot, in ns after T0: issued, links down, links up, forwarding again; and when senders noticed.
ISSUED, DOWN, NOTICED, UP, FORWARDING = 1_200 * MS, 1_204 * MS, 1_223 * MS, 1_505 * MS, 1_711 * MS
RETURNED = 1_760 * MS


@dataclass(frozen=True)
class Run:
    """The packets of a run; per packet sent, whether and when it arrived."""

    lab: Lab
    samples: Samples
    lost: npt.NDArray[np.bool_]
    arrived_ns: I64
    reordered: npt.NDArray[np.bool_]
    started: PressureReading

    @property
    def faulted(self) -> str:
        return f"p{min(3, self.lab.planes - 1)}-t1-0"

    @property
    def fault_plane(self) -> int:
        return min(3, self.lab.planes - 1)


def reboot_run(lab: Lab, *, seconds: float = 4.0, rate: int = 4000, seed: int = 7) -> Run:
    """Every host sends ``rate`` packets/s to the host half the fabric away; EVs through the T1 lose theirs."""
    started, rng = PressureReading.take(), np.random.default_rng(seed)
    hosts, paths = len(lab.topology.hosts), lab.planes * lab.t1_per_plane
    per_flow = int(seconds * rate)
    flow = np.repeat(np.arange(hosts), per_flow)
    seq = np.tile(np.arange(per_flow), hosts)
    t = T0 + seq * (1_000 * MS * 1_000 // rate // 1_000) + rng.integers(0, 20_000, seq.size)
    path = (seq + flow * 5) % paths
    faulted = min(3, lab.planes - 1) * lab.t1_per_plane
    away = (t - T0 >= NOTICED) & (t - T0 < RETURNED)
    path = np.where(away & (path == faulted), (path + 1 + seq // paths % (paths - 1)) % paths, path)
    plane = path // lab.t1_per_plane
    lost = (path == faulted) & (t - T0 >= DOWN) & (t - T0 < FORWARDING)
    arrived = t + 180_000 + plane * 4_000 + rng.exponential(70_000, seq.size).astype(np.int64)

    sent = np.zeros(seq.size, dtype=SENT)
    for column, values in {"seq": seq, "t_ns": t, "flow": flow, "ev": path, "plane": plane}.items():
        sent[column] = values
    order = np.lexsort((arrived, flow))
    order = order[~lost[order]]
    arrivals = np.zeros(order.size, dtype=ARRIVAL)
    for column in ("seq", "flow", "ev", "plane"):
        arrivals[column] = sent[column][order]
    arrivals["t_ns"] = arrived[order]
    # RFC 4737 §3: reordered is what arrives after a larger sequence number; flows do not overlap in this key.
    key = flow[order] * per_flow + seq[order]
    reordered = np.zeros(seq.size, dtype=bool)
    reordered[order] = key < np.maximum.accumulate(key)
    names = tuple(f"h{host}>h{(host + hosts // 2) % hosts}" for host in range(hosts))
    return Run(
        lab, Samples(names, sent, arrivals, 500 * MS, 15_000), lost, np.where(lost, 0, arrived), reordered, started
    )


def timeline(run: Run, window_ns: int = 5 * MS) -> Timeline:
    """Counts of each plane per window."""
    sent, planes = run.samples.sent, run.lab.planes
    last = max(int(sent["t_ns"].max()), int(run.arrived_ns.max()))
    windows = (last - T0) // window_ns + 1

    def count(rows: npt.NDArray[np.bool_], times: I64) -> I64:
        cells = sent["plane"][rows].astype(np.int64) * windows + (times[rows] - T0) // window_ns
        each = np.bincount(cells, minlength=planes * windows).reshape(planes, windows)
        return np.vstack([each.sum(axis=0), each]).astype(np.int64)

    everything = np.ones(sent.size, dtype=bool)
    return Timeline(
        T0,
        window_ns,
        tuple(range(planes)),
        PAYLOAD,
        count(everything, sent["t_ns"]),
        count(~run.lost, run.arrived_ns),
        count(run.lost, sent["t_ns"]),
        count(run.reordered, run.arrived_ns),
    )


def figures(run: Run) -> list[Figure]:
    """A part of what the measures compute, by the same names."""
    sent = run.samples.sent
    out = _scope(run, np.ones(sent.size, dtype=bool), "all")
    out += [failover(run)]
    for plane in range(run.lab.planes):
        out += _scope(run, sent["plane"] == plane, f"plane {plane}")
    for number, name in enumerate(run.samples.flows):
        out += _scope(run, sent["flow"] == number, f"flow {name}")
    return out + _evs(run)


def _evs(run: Run) -> list[Figure]:
    """Loss of every EV of every flow."""
    sent = run.samples.sent
    evs = int(sent["ev"].max()) + 1
    key = sent["flow"].astype(np.int64) * evs + sent["ev"]
    offered = np.bincount(key, minlength=len(run.samples.flows) * evs)
    lost = np.bincount(key[run.lost], minlength=offered.size)
    out = []
    for position in np.flatnonzero(offered).tolist():
        scope = f"flow {run.samples.flows[position // evs]} ev {position % evs:#06x}"
        n, gone = int(offered[position]), int(lost[position])
        out += [
            Figure("lost", gone, "packets", "packets sent without an arrival", n, scope),
            Figure("loss_ratio", gone / n, "ratio", "packets lost over packets sent (RFC 7680)", n, scope, 1 / n),
        ]
    return out


def _scope(run: Run, rows: npt.NDArray[np.bool_], scope: str) -> list[Figure]:
    n, lost = int(rows.sum()), int((run.lost & rows).sum())
    received = n - lost
    late = int((run.reordered & rows).sum())
    elapsed = np.ptp(run.samples.sent["t_ns"][rows]) * 1e-9
    delay = (run.arrived_ns - run.samples.sent["t_ns"])[rows & ~run.lost] * 1e-9
    waiting = "waiting time 0.5 s"
    return [
        Figure("lost", lost, "packets", "packets sent without an arrival within the waiting time (RFC 7680)", n, scope),
        Figure("loss_ratio", lost / n, "ratio", "packets lost over packets sent (RFC 7680)", n, scope, 1 / n, waiting),
        Figure(
            "blocked_time",
            lost * elapsed / n,
            "s",
            "packets lost over the rate they were offered at (RFC 6413)",
            n,
            scope,
            elapsed / n,
        ),
        Figure("outage", *outage(run, rows, scope), scope, elapsed * len(run.samples.flows) / run.samples.sent.size),
        Figure(
            "reordered_ratio",
            late / received,
            "ratio",
            "packets reordered over packets received (RFC 4737 §4.1)",
            received,
            scope,
            1 / received,
            waiting,
        ),
        Figure("delay_p50", float(np.median(delay)), "s", "median one-way delay (RFC 7679)", delay.size, scope, 1.5e-5),
        Figure(
            "delay_p99",
            float(np.quantile(delay, 0.99)),
            "s",
            "99th percentile of one-way delay (RFC 7679)",
            delay.size,
            scope,
            1.5e-5,
        ),
        Figure(
            "goodput",
            received * PAYLOAD * 8 / elapsed,
            "bit/s",
            "payload bits received for the first time, per second between the first and last sending",
            received,
            scope,
            PAYLOAD * 8 / elapsed,
            f"{PAYLOAD} payload bytes per packet",
        ),
    ]


def outage(run: Run, rows: npt.NDArray[np.bool_], scope: str) -> tuple[float, str, str, int]:
    """The longest gap of a flow, or of its share on a plane, minus what it is sent at."""
    sent = run.samples.sent
    rows = rows & ~run.lost
    key = sent["flow"].astype(np.int64) * 256 + (sent["plane"] if scope.startswith("plane") else 0)
    order = np.lexsort((run.arrived_ns, key))
    order = order[rows[order]]
    gaps = np.diff(run.arrived_ns[order])[np.diff(key[order]) == 0]
    definition = "longest gap between arrivals of a constant-rate stream, minus its sending interval (RFC 6201)"
    return float(gaps.max() - np.median(gaps)) * 1e-9, "s", definition, int(gaps.size)


def failover(run: Run, window_ns: int = 10 * MS) -> Figure:
    """From the fault to the first of five windows at 90% of what is offered."""
    arrived = run.arrived_ns[~run.lost] - T0 - ISSUED
    windows = int(arrived.max() // window_ns)
    counts = np.bincount(arrived[(arrived >= 0) & (arrived < windows * window_ns)] // window_ns, minlength=windows)
    enough = counts >= 0.95 * np.median(counts)
    back = np.flatnonzero(np.convolve(enough, np.ones(5, dtype=int), mode="valid") == 5)
    definition = (
        "from the event to the first window of goodput at 90% or more of what the remaining paths can carry, "
        "where it stays for 5 windows"
    )
    note = f"{run.faulted} issued, window 0.010000 s"
    value = float(back[0]) * window_ns * 1e-9
    return Figure("failover", value, "s", definition, windows, "all", window_ns * 1e-9, note)


def events(run: Run) -> list[Event]:
    """The phases of the reboot and what the senders noticed."""
    name, plane = run.faulted, run.fault_plane
    return [
        Event(T0 + ISSUED, "fault", name, "issued", 40_000),
        Event(T0 + DOWN, "carrier", name, "carrier lost", 2_100_000),
        Event(T0 + UP, "carrier", name, "carrier back", 1_900_000),
        Event(T0 + FORWARDING, "tables", name, "forwarding", 800_000),
        *(
            Event(T0 + NOTICED + host * 400_000, "traffic", f"h{host}:p{plane}", "path suspended", 0, {"lost": 3})
            for host in range(min(len(run.samples.flows), 8))
        ),
        Event(T0 + RETURNED, "traffic", f"h0:p{plane}", "path back"),
    ]


def result(run: Run, folder: Path, **changes: Any) -> Result:
    """The result of a run, its samples saved in ``folder``."""
    found = figures(run)
    records = figure_records(found)
    end = T0 + 4_600 * MS
    lost = int(run.lost.sum())
    t0s = [f"p{run.fault_plane}-t0-{number}" for number in range(run.lab.t0_per_plane)]
    judged = judgements(records)
    broken = [judgement.limit for judgement in judged if judgement.outcome is not Verdict.PASS]
    fields: dict[str, Any] = {
        "id": "t1-reboot-7f3a",
        "title": "test_t1_reboot_costs_nothing[cold]",
        "created": created_from_ns(end),
        "command": ("pytest", "--lab", f"labs/{run.lab.name}.yaml", "-k", "test_t1_reboot_costs_nothing[cold]"),
        "verdict": Verdict.FAIL if broken else Verdict.PASS,
        "reason": "; ".join(f"{limit.name} is above {limit.value:g} {limit.unit}" for limit in broken)
        or f"all {len(judged)} limits are kept",
        "lab": lab_record(run.lab),
        "realised": "netns",
        "versions": versions_here(),
        "machine": machine_here(),
        "seeds": {"traffic": 7},
        "clock": ClockRecord.between(
            ClockReading(T0 - 90 * MS, 10**12), ClockReading(end + 1_300, 10**12 + 4_690 * MS)
        ),
        "pressure": PressureRecord.of(PressureReading.take().since(run.started)),
        "faults": (
            FaultRecord(
                kind="cold reboot",
                subject=run.faulted,
                begin_ns=T0 + ISSUED,
                end_ns=T0 + FORWARDING,
                healed=True,
                note="links away 300 ms, tables empty 200 ms",
            ),
        ),
        "events": event_records(events(run)),
        "figures": records,
        "judgements": judged,
        "timeline": with_flows(TimelineRecord.of(timeline(run)), count_flows(match(run.samples), timeline(run))),
        "distributions": distributions(match(run.samples), tuple(range(run.lab.planes))),
        "unexplained_packets": 0,
        "drops": tuple(
            DropRecord(
                hop=f"{t0}~{run.faulted}",
                cause="port down",
                packets=lost // len(t0s) + (lost % len(t0s) if number == 0 else 0),
            )
            for number, t0 in enumerate(t0s)
        ),
        "samples": (save_samples(run.samples, folder / "samples.npz"),),
        "artefacts": (ArtefactRecord(path="logs/keeper.log", kind="log", about="the fabric's keeper"),),
        "notes": ("The senders spray every packet and do not retransmit: every packet lost is counted.",),
    }
    fields.update(changes)
    return Result(**fields)


def judgements(records: tuple[FigureRecord, ...], outage_ms: float = 50) -> tuple[JudgementRecord, ...]:
    """Limits as a test would set them."""
    limits = [
        (LimitRecord(name="failover", op="<=", value=50, unit="ms"), 0.05),
        (LimitRecord(name="outage", op="<=", value=outage_ms, unit="ms"), outage_ms / 1e3),
        (LimitRecord(name="loss_ratio", op="<=", value=0.1, unit="%"), 0.001),
    ]
    out = []
    for limit, bound in limits:
        position = next(n for n, figure in enumerate(records) if (figure.name, figure.scope) == (limit.name, "all"))
        kept = _value(records, limit.name, "all") <= bound
        out.append(
            JudgementRecord(limit=limit, figure=position, outcome=Verdict.PASS if kept else Verdict.FAIL, note="")
        )
    return tuple(out)


def _value(records: tuple[FigureRecord, ...], name: str, scope: str) -> float:
    value = next(figure.value for figure in records if (figure.name, figure.scope) == (name, scope))
    assert value is not None
    return value
