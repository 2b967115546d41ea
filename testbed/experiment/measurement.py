"""From finished path probes and the faults they lived through to figures and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from testbed.experiment.accounting import account
from testbed.experiment.measured import Measured, judged
from testbed.faults.scope import FaultScope, Outage
from testbed.lab import Lab
from testbed.measure.dead import NEVER, DeadWindow, DeadWindowLoss, lost_in_windows
from testbed.measure.definitions import Report
from testbed.measure.failover import FEWEST_PER_WINDOW, Transition
from testbed.measure.match import match
from testbed.measure.outage import Agreement, agreement, outages
from testbed.measure.reorder import reordering
from testbed.measure.streams import Level, Streams, streams
from testbed.measure.summary import summarise
from testbed.measure.timeline import Timeline, timeline
from testbed.record import Drop, Event, Figure
from testbed.traffic.path_probes import PathProbes

#: A sampling window of goodput is this long, or longer where the workload sends too little for it.
WINDOW_NS = 10_000_000
#: Scope of the figures of those EVs that a fault killed.
DEAD_EVS = "dead EVs"
_PACKETS_PER_WINDOW = 2 * FEWEST_PER_WINDOW


@dataclass(frozen=True)
class ProbesMeasured(Measured):
    """What one run of path probes came to.

    Attributes:
        dead: each EV's losses against the time the faults killed it.
        agreements: of each EV that a fault killed, the loss-derived against the gap-derived outage.
    """

    flows: PathProbes
    dead: DeadWindowLoss
    agreements: tuple[Agreement, ...]

    @cached_property
    def timeline(self) -> Timeline:
        """Sent, delivered, lost and reordered per plane and window."""
        return timeline(
            self.matched,
            reordering(streams(self.matched, Level.FLOW)),
            window_ns=self.window_ns,
            payload_bytes=self.flows.payload_bytes,
        )

    @property
    def explained(self) -> bool:
        """Whether exactly the packets sent on dead EVs while they were dead were lost, within one per EV and edge."""
        return self.dead.explained

    @property
    def contradictions(self) -> list[str]:
        """EVs whose losses the faults do not explain."""
        if self.explained:
            return []
        return [
            f"{ev.name}: {ev.contradictions} packets whose fate the faults do not explain "
            f"({ev.lost_outside} lost while it was alive, {ev.delivered_within} delivered while it was dead)"
            for ev in self.dead.contradicting()
        ]

    @property
    def notes(self) -> list[str]:
        """How well the senders kept their schedule, and what became of packets on dead EVs."""
        counters = self.flows.outcome.counters
        late, worst_ms = counters["late"], counters["behind_ns_max"] / 1e6
        notes = [
            f"{late} packets left more than 1 ms after their time, the latest {worst_ms:.2f} ms",
            f"the probe agents used {counters['cpu_ns'] / 1e9:.2f} s of processor time",
        ]
        if self.faults:
            within = sum(ev.sent_within for ev in self.dead.evs)
            lost = sum(ev.lost_within for ev in self.dead.evs)
            notes.append(
                f"{within} packets were sent on dead EVs while these were dead, and {lost} of them were lost; "
                f"on EVs that no fault touched {self.dead.lost_on_survivors()} were lost"
            )
        return notes


def measure(
    lab: Lab, flows: PathProbes, faults: Sequence[FaultScope] = (), drops: Sequence[Drop] = ()
) -> ProbesMeasured:
    """Compute every figure of a finished run and judge those that the lab limits.

    ``drops``: packets that filter rules dropped whose counters went with them.

    Raises UsageError for a run that has not finished, InfrastructureError for samples that contradict themselves.
    """
    outcome = flows.outcome
    matched = match(outcome.samples)
    window_ns = _window_ns(flows)
    hit = [outage for fault in faults for outage in fault.outages()]
    figures = summarise(
        outcome.samples,
        [event for fault in faults for event in fault.events],
        transitions=_transitions(flows, faults),
        payload_bytes=flows.payload_bytes,
        window_ns=window_ns,
        clock_step_ns=outcome.clock_step_ns,
        planes=sorted({path.plane for path in flows.paths}),
    )
    evs = streams(matched, Level.EV)
    dead = lost_in_windows(evs, _dead_windows(flows, hit))
    agreements = _agreements(evs, dead)
    figures += _figures_of_dead_evs(figures, dead)
    report = Report(receiver_drops=outcome.samples.receiver_drops, clock_step_ns=outcome.clock_step_ns)
    figures.append(dead.figure(report))
    accounts = account(lab, flows, outcome.samples.sent, outcome.samples.arrivals, drops)
    figures.append(accounts.figure(report))
    judgements = judged(lab, figures, faults)
    return ProbesMeasured(
        flows, tuple(faults), matched, tuple(figures), judgements, window_ns, accounts, dead, agreements
    )


def _agreements(evs: Streams, dead: DeadWindowLoss) -> tuple[Agreement, ...]:
    """The two outages of each EV that a fault killed; every stream of ``evs`` stands at its own place in ``dead``."""
    found = outages(evs)
    compared = [agreement(found, stream) for stream, ev in enumerate(dead.evs) if ev.windows]
    return tuple(entry for entry in compared if entry is not None)


def _figures_of_dead_evs(figures: Sequence[Figure], dead: DeadWindowLoss) -> list[Figure]:
    """Outage and blocked time of the EVs that a fault killed, the longest standing for all."""
    names = {ev.name for ev in dead.evs if ev.windows}
    worst = []
    for name in ("outage", "blocked_time"):
        hit = [figure for figure in figures if figure.name == name and figure.scope in names]
        known = [figure for figure in hit if figure.value is not None]
        if known and len(known) == len(hit):
            longest = max(known, key=lambda figure: figure.value or 0.0)
            note = f"longest of {len(hit)}, {longest.scope}"
            worst.append(replace(longest, scope=DEAD_EVS, note=f"{note}; {longest.note}" if longest.note else note))
    return worst


def _window_ns(flows: PathProbes) -> int:
    total = flows.rate * len(flows.pairs)
    return WINDOW_NS if not total else max(WINDOW_NS, round(_PACKETS_PER_WINDOW / total * 1e9))


def _dead_windows(flows: PathProbes, outages: Sequence[Outage]) -> list[DeadWindow]:
    """The outages as each EV of each flow meets them, their edges as wide as the send stamps are uncertain."""
    error = flows.outcome.samples.send_error_ns
    latest = NEVER - error
    windows = []
    for (flow, ev), path in flows.path_of.items():
        for outage in outages:
            if outage.hits(path):
                start_hi = outage.start_hi + error
                # Shorter than its edges are wide, it was nowhere surely dead.
                end_lo = max(outage.end_lo - error, start_hi)
                end_hi = max(min(outage.end_hi, latest) + error, end_lo)
                windows.append(DeadWindow(flow, ev, outage.start_lo - error, start_hi, end_lo, end_hi))
    return windows


def _transitions(flows: PathProbes, faults: Sequence[FaultScope]) -> list[Transition]:
    """Failover of each fault that hit, restoration of each that healed; none for an unpaced workload."""
    if not flows.rate:
        return []
    payload_bits = flows.payload_bytes * 8
    wanted: list[Transition] = []
    outages = [outage for fault in faults for outage in fault.outages()]
    for fault in faults:
        # What loses some packets kills no path: there is nothing to fail over from.
        if not fault.is_outage:
            continue
        hit, healed = fault.observed, fault.healed
        if hit is not None:
            wanted.append(Transition(hit, "failover", _surviving(flows, outages, hit) * payload_bits))
        if healed is not None:
            wanted.append(Transition(healed, "restore", _surviving(flows, outages, healed) * payload_bits))
    return wanted


def _surviving(flows: PathProbes, all_outages: Sequence[Outage], event: Event) -> float:
    """Packets/s that are offered on EVs which no outage touches that is in force right after an event."""
    outages = [outage for outage in all_outages if outage.start_lo <= event.t_ns < outage.end_hi]
    alive = 0.0
    for number, pair in enumerate(flows.pairs):
        evs = flows.evs[pair]
        hit = sum(any(outage.hits(flows.path_of[number, ev]) for outage in outages) for ev in evs)
        alive += flows.rate * (1 - hit / len(evs))
    return alive
