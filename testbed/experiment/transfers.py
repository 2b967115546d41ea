"""From finished MRC transfers and the faults they lived through to figures and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from testbed.experiment.accounting import account
from testbed.experiment.capacity import surviving_capacity
from testbed.experiment.measured import Measured, judged
from testbed.faults.scope import FaultScope, Outage
from testbed.lab import Lab
from testbed.measure.definitions import Report
from testbed.measure.failover import (
    FEWEST_PER_WINDOW,
    STAYS_FOR,
    Transition,
    detect_figure,
    placed_goodput,
    transition_figure,
)
from testbed.measure.match import Matched, match
from testbed.measure.reorder import reordering
from testbed.measure.streams import Level, streams
from testbed.measure.summary import summarise
from testbed.measure.timeline import Timeline, timeline
from testbed.measure.transfers import message_figures, path_restore_figure, placed_figures, retransmission_figures
from testbed.measure.undisturbed import undisturbed_figure
from testbed.record import Drop, Event, Figure
from testbed.samples import SampleFlag
from testbed.traffic.mrc.transfers import MrcTransfers

#: The sampling window of goodput, or longer where it would hold too few packets.
WINDOW_NS = 5_000_000
#: The load that must come back is that of so long before the fault.
_BASELINE_NS = 200_000_000
#: Above this share of the emulated round trip software's own delay is pointed out.
_SOFTWARE_SHARE = 0.1


@dataclass(frozen=True)
class TransfersMeasured(Measured):
    """What one run of MRC transfers came to."""

    flows: MrcTransfers

    @property
    def events(self) -> list[Event]:
        """What happened to the fabric and to the senders' EVs, in order of time."""
        return sorted([*super().events, *self.flows.outcome.ev_changes], key=lambda event: event.t_ns)

    @cached_property
    def timeline(self) -> Timeline:
        """Sent, delivered, lost and reordered per plane and window, of first transmissions."""
        return timeline(
            self.matched,
            reordering(streams(self.matched, Level.FLOW)),
            window_ns=self.window_ns,
            payload_bytes=self.flows.settings.pmtu,
        )

    @property
    def contradictions(self) -> list[str]:
        """Messages that failed or arrived wrong."""
        lines = []
        for flow in self.flows.outcome.messages:
            if flow.failed:
                lines.append(f"flow {flow.name}: {flow.failed} messages failed: {self.flows.outcome.why[flow.name]}")
            if flow.mismatches:
                lines.append(f"flow {flow.name}: {flow.mismatches} messages arrived wrong")
        return lines + [f"  {line}" for line in self.flows.outcome.mismatches[:8]]

    @property
    def notes(self) -> list[str]:
        """The settings that decide what the figures can show."""
        flows, settings = self.flows, self.flows.settings
        depth = f"messages of {flows.message} bytes, {flows.depth} outstanding on each"
        timers = f"base RTT {settings.nscc.base_rtt_ns / 1e6:g} ms, ACK timeout {settings.ack_timeout_ns / 1e6:g} ms"
        return [
            f"{len(flows.flows)} queue pairs, {depth}, path MTU {settings.pmtu}",
            f"wire format as read in {flows.reading}; {timers}",
            *self._software_delay(),
        ]

    def _software_delay(self) -> list[str]:
        """Software's own delay does not scale: what it is beside the round trip that the lab stands for."""
        shortest, emulated = self.flows.outcome.base_rtt_ns, self.flows.settings.nscc.base_rtt_ns
        if shortest is None:
            return []
        line = f"shortest round trip {shortest / 1e6:.3g} ms, {shortest / emulated:.0%} of the scaled base RTT"
        if shortest > _SOFTWARE_SHARE * emulated:
            line += ": times below some round trips are software's, not the emulated fabric's"
        return [line]


def measure_transfers(
    lab: Lab, flows: MrcTransfers, faults: Sequence[FaultScope] = (), drops: Sequence[Drop] = ()
) -> TransfersMeasured:
    """Compute every figure of finished transfers and judge those that the lab limits.

    ``drops``: packets that filter rules dropped whose counters went with them.

    Raises UsageError for a run that has not finished, InfrastructureError for samples that contradict themselves.
    """
    outcome = flows.outcome
    report = Report(receiver_drops=outcome.samples.receiver_drops, clock_step_ns=outcome.clock_step_ns)
    planes = sorted({path.plane for path in flows.paths})
    changes = outcome.ev_changes
    figures = summarise(
        outcome.samples,
        [*(event for fault in faults for event in fault.events), *changes],
        clock_step_ns=outcome.clock_step_ns,
        planes=planes,
    )
    figures += message_figures(outcome.messages, report)
    figures += retransmission_figures(outcome.sent, flows.flows, report)
    figures += placed_figures(outcome.sent, outcome.arrivals, flows.flows, planes, report)
    retired = [change for change in changes if change.what in _GIVEN_UP]
    figures.append(report.figure("evs_retired", len(retired), len(changes), "all"))
    matched = match(outcome.samples)
    window_ns = _window_ns(flows)
    for fault in faults:
        figures += _consequences(lab, flows, faults, fault, matched, window_ns, report)
    if outages := [outage for fault in faults if fault.observed and fault.is_outage for outage in fault.outages()]:
        figures.append(_undisturbed(lab, flows, outages, window_ns, report))
    accounts = account(lab, flows, outcome.sent, outcome.arrivals, drops)
    figures.append(accounts.figure(report))
    judgements = judged(lab, figures, faults)
    return TransfersMeasured(flows, tuple(faults), matched, tuple(figures), judgements, window_ns, accounts)


_GIVEN_UP = frozenset({"assumed bad", "port down"})
_BACK = frozenset({"good", "port up"})


def _window_ns(flows: MrcTransfers) -> int:
    sent = flows.outcome.sent
    if len(sent) < 2:
        return WINDOW_NS
    interval = int(sent["t_ns"].max() - sent["t_ns"].min()) / (len(sent) - 1)
    return max(WINDOW_NS, round(2 * FEWEST_PER_WINDOW * interval))


def _consequences(
    lab: Lab,
    flows: MrcTransfers,
    faults: Sequence[FaultScope],
    fault: FaultScope,
    matched: Matched,
    window_ns: int,
    report: Report,
) -> Iterable[Figure]:
    """Failover from the first packet lost in the fault, detection, and restoration."""
    hit, healed = fault.observed, fault.healed
    # What loses some packets kills no path: there is nothing to fail over from.
    if hit is None or not fault.is_outage:
        return
    outages = [outage for one in faults for outage in one.outages()]
    began = _first_lost(flows, matched, fault.outages()[0]) or hit
    yield _transition(lab, flows, outages, began, "failover", window_ns, report)
    names = _paths_hit(flows, fault.outages()[0])
    yield detect_figure(hit, flows.outcome.ev_changes, names, report, "all")
    if healed is not None:
        yield _transition(lab, flows, outages, healed, "restore", window_ns, report)
        changes = flows.outcome.ev_changes
        retired = [change for change in changes if change.what in _GIVEN_UP and change.subject in names]
        returned = [change for change in changes if change.what in _BACK]
        yield path_restore_figure(hit, healed, retired, returned, report)


def _paths_hit(flows: MrcTransfers, outage: Outage) -> set[str]:
    """What senders call the paths that an outage touches: EVs, and planes of which it leaves no EV."""
    hit, spared = set[tuple[int, int, int]](), set[tuple[int, int]]()
    for (flow, ev), path in flows.path_of.items():
        if outage.hits(path):
            hit.add((flow, path.plane, ev))
        else:
            spared.add((flow, path.plane))
    names = {f"flow {flows.flows[flow]} ev 0x{ev:04x}" for flow, _, ev in hit}
    return names | {f"flow {flows.flows[flow]} plane {plane}" for flow, plane, _ in hit if (flow, plane) not in spared}


def _first_lost(flows: MrcTransfers, matched: Matched, outage: Outage) -> Event | None:
    """The first packet that was sent into an outage and lost; None where none was."""
    lost = np.flatnonzero(matched.lost & (matched.t_sent >= outage.start_lo) & (matched.t_sent < outage.end_hi))
    flow = np.searchsorted(matched.flow_starts, lost, side="right") - 1
    hit = {key for key, path in flows.path_of.items() if outage.hits(path)}
    times = [
        int(matched.t_sent[packet])
        for packet, number in zip(lost.tolist(), flow.tolist(), strict=True)
        if (number, int(matched.ev[packet])) in hit
    ]
    if not times:
        return None
    return Event(min(times), "traffic", outage.subject, "first packet lost", flows.outcome.samples.send_error_ns)


def _transition(
    lab: Lab,
    flows: MrcTransfers,
    outages: Sequence[Outage],
    event: Event,
    kind: str,
    window_ns: int,
    report: Report,
) -> Figure:
    outcome = flows.outcome
    in_force = [outage for outage in outages if outage.start_lo <= event.t_ns < outage.end_hi]
    series = placed_goodput(
        outcome.arrivals,
        origin_ns=event.t_ns,
        window_ns=window_ns,
        end_ns=int(outcome.sent["t_ns"].max()) if len(outcome.sent) else event.t_ns,
    )
    expected = _expected(lab, flows, outages, in_force)
    wanted = Transition(event, "failover" if kind == "failover" else "restore", expected)
    return transition_figure(series, wanted, flows=flows.flows, report=report)


def _expected(lab: Lab, flows: MrcTransfers, outages: Sequence[Outage], in_force: Sequence[Outage]) -> float:
    """What the paths that these spare can carry of the load before the first of all ``outages``, bit/s."""
    alive, load, capacity = surviving_capacity(flows, in_force), _load_before(flows, outages), lab.emulated_rate
    if capacity is None:
        expected = load * alive / surviving_capacity(flows, [])
    else:
        expected = min(load, alive * capacity * flows.payload_share)
    return max(expected, 1.0)


def _undisturbed(lab: Lab, flows: MrcTransfers, outages: Sequence[Outage], window_ns: int, report: Report) -> Figure:
    outcome, sent = flows.outcome, flows.outcome.sent["t_ns"]
    begin = min(outage.start_lo for outage in outages) - _BASELINE_NS
    spans = quiet_spans(outcome.ev_changes, outages, begin, int(sent.max()) if sent.size else begin)
    # What has just come back fills up first.
    settled = [(first + STAYS_FOR * window_ns, last) for first, last in spans]
    stretches = [
        placed_goodput(outcome.arrivals, origin_ns=first, window_ns=window_ns, end_ns=last) for first, last in settled
    ]
    return undisturbed_figure(stretches, _expected(lab, flows, outages, []), report)


def quiet_spans(
    changes: Sequence[Event], outages: Sequence[Outage], begin_ns: int, end_ns: int
) -> list[tuple[int, int]]:
    """When from ``begin_ns`` to ``end_ns`` no outage was in force and no EV given up, by the senders' ``changes``."""
    away, turns = set[str](), list[tuple[int, int]]()
    for change in changes:
        before = bool(away)
        if change.what in _GIVEN_UP:
            away.add(change.subject)
        elif change.what in _BACK:
            away.discard(change.subject)
        if bool(away) != before:
            turns.append((change.t_ns, 1 if away else -1))
    for outage in outages:
        turns += [(outage.start_lo, 1), (outage.end_hi, -1)]
    spans, busy, since = list[tuple[int, int]](), 0, begin_ns
    for t_ns, step in sorted(turns):
        if not busy and max(since, begin_ns) < min(t_ns, end_ns):
            spans.append((max(since, begin_ns), min(t_ns, end_ns)))
        busy, since = busy + step, t_ns
    if not busy and max(since, begin_ns) < end_ns:
        spans.append((max(since, begin_ns), end_ns))
    return spans


def _load_before(flows: MrcTransfers, outages: Sequence[Outage]) -> float:
    """Mean goodput before the first outage, bit/s."""
    arrivals = flows.outcome.arrivals
    if not outages or not len(arrivals):
        return 0.0
    end = min(outage.start_lo for outage in outages)
    begin = max(end - _BASELINE_NS, int(arrivals["t_ns"].min()))
    placed = (arrivals["flags"] & SampleFlag.PLACED) != 0
    within = placed & (arrivals["t_ns"] >= begin) & (arrivals["t_ns"] < end)
    return float(arrivals["bytes"][within].sum()) * 8e9 / max(end - begin, 1)
