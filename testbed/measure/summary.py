"""All figures of one workload's samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from testbed.errors import UsageError
from testbed.measure import delay, loss, outage, reorder
from testbed.measure.definitions import Report
from testbed.measure.failover import Transition, detect_figure, goodput, transition_figure
from testbed.measure.match import Matched, match
from testbed.measure.planes import plane_figures, planes_seen
from testbed.measure.streams import Level, Scope, Streams, streams
from testbed.record import Event, Figure
from testbed.samples import Samples

#: The lane of the events that are changes of a sender's state.
SENDER_LANE = "traffic"
#: The sampling window of goodput, unless told otherwise.
WINDOW_NS = 10_000_000


def summarise(
    samples: Samples,
    events: Iterable[Event] = (),
    *,
    transitions: Sequence[Transition] = (),
    payload_bytes: int | None = None,
    window_ns: int = WINDOW_NS,
    waiting_time_ns: int | None = None,
    clock_step_ns: int = 0,
    planes: Sequence[int] | None = None,
) -> list[Figure]:
    """Every figure of ``docs/metrics.md`` that these samples support.

    Scopes are ``all``, each flow and each plane; each flow's EVs carry loss, blocked time, outage, and the
    median and 99th percentile of delay only.

    Args:
        samples: what the workload saw.
        events: what happened meanwhile; those of lane ``traffic`` are the sender's state changes.
        transitions: events to time failover, restore and detection of.
        payload_bytes: payload of one packet; without it there is no goodput.
        window_ns: sampling window of goodput for the transitions.
        waiting_time_ns: after which an arrival is late; by default as long as the receivers listened.
        clock_step_ns: how far CLOCK_REALTIME stepped against CLOCK_MONOTONIC during the run.
        planes: all planes the workload was to use, so that one that carried nothing counts; by default
            those packets were seen on.

    Raises:
        UsageError: transitions without a payload size.
        InfrastructureError: samples that contradict themselves.
    """
    if transitions and payload_bytes is None:
        raise UsageError(
            "failover and restore times need goodput",
            expected="payload_bytes, the payload of one packet",
            remedy="pass payload_bytes with the transitions",
        )
    report = Report(receiver_drops=samples.receiver_drops, clock_step_ns=clock_step_ns)
    matched = match(samples, waiting_time_ns)
    out = [*_evs(matched, report)]
    for level in (Level.PLANE, Level.FLOW):
        out += _level(streams(matched, level), report, payload_bytes)
    named = matched.foreign_flow[matched.foreign_flow < len(samples.flows)]
    foreign = np.bincount(named, minlength=len(samples.flows))
    out.append(report.figure("foreign", matched.foreign_flow.size, samples.arrivals.size, "all"))
    out += [
        report.figure("foreign", int(count), samples.arrivals.size, f"flow {name}")
        for name, count in zip(samples.flows, foreign, strict=True)
    ]
    out += plane_figures(matched, planes_seen(matched) if planes is None else planes, report)
    if payload_bytes is not None:
        changes = [event for event in events if event.lane == SENDER_LANE]
        for wanted in transitions:
            series = goodput(
                matched,
                origin_ns=wanted.event.t_ns,
                window_ns=window_ns,
                payload_bytes=payload_bytes,
                plane=wanted.plane,
                flow=wanted.flow,
            )
            out.append(transition_figure(series, wanted, flows=samples.flows, report=report))
            if wanted.paths:
                out.append(detect_figure(wanted.event, changes, wanted.paths, report, wanted.scope(samples.flows)))
    return sorted(out, key=lambda figure: _depth(figure.scope))


def _evs(matched: Matched, report: Report) -> Iterator[Figure]:
    """The few figures of each EV, and for wider scopes whether both outage methods agree on its EVs."""
    found = streams(matched, Level.EV)
    note = _waiting(matched)
    counts, gaps, delays = loss.counts(found), outage.outages(found), delay.delays(found)
    for scope in found.scopes():
        yield from loss.loss_figures(counts, scope, report, note)
        yield from outage.outage_figures(gaps, scope, report)
        yield from delay.delay_figures(delays, scope, report, ("50", "99"), extremes=False)
    yield outage.disagreement_figure(gaps, found.everything(), report)
    for number, name in enumerate(matched.samples.flows):
        yield outage.disagreement_figure(gaps, Scope(f"flow {name}", np.flatnonzero(found.flow == number)), report)
    first_packets = found.starts[:-1] if found.order is None else found.order[found.starts[:-1]]
    plane_of = matched.plane[first_packets]
    for plane in np.unique(plane_of):
        yield outage.disagreement_figure(gaps, Scope(f"plane {plane}", np.flatnonzero(plane_of == plane)), report)


def _level(found: Streams, report: Report, payload_bytes: int | None) -> Iterator[Figure]:
    """All figures of each scope of one level, and of all together where the level is that of flows."""
    note = _waiting(found.matched)
    counts, runs, order = loss.counts(found), loss.pattern(found), reorder.reordering(found)
    gaps, delays = outage.outages(found), delay.delays(found)
    for scope in [*found.scopes(), *([found.everything()] if found.level is Level.FLOW else [])]:
        yield from loss.loss_figures(counts, scope, report, note)
        yield from loss.duplication_figures(counts, scope, report, note)
        yield from loss.pattern_figures(runs, scope, report)
        yield from reorder.reordering_figures(order, scope, report, note)
        yield from outage.outage_figures(gaps, scope, report)
        yield from delay.delay_figures(delays, scope, report)
        if payload_bytes is not None:
            yield _goodput(counts, gaps, scope, payload_bytes, report)


def _goodput(counts: loss.Counts, gaps: outage.Outages, scope: Scope, payload_bytes: int, report: Report) -> Figure:
    """Mean goodput of a scope over the time it was sent in."""
    own = scope.streams
    interval = gaps.pooled_interval_ns(own)
    received = int((counts.sent[own] - counts.lost[own]).sum())
    if interval is None:
        return report.figure("goodput", None, received, scope.name, note="too few packets sent for a rate")
    packet_bps = payload_bytes * 8e9 / (interval * int(counts.sent[own].sum()))
    note = f"{payload_bytes} payload bytes per packet"
    return report.figure("goodput", received * packet_bps, received, scope.name, resolution=packet_bps, note=note)


def _waiting(matched: Matched) -> str:
    return f"waiting time {matched.waiting_time_ns * 1e-9:g} s"


def _depth(scope: str) -> int:
    """Wide scopes first: all, planes, flows, EVs."""
    return 0 if scope == "all" else 1 if scope.startswith("plane") else 3 if " ev " in scope else 2
