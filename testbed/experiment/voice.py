"""From finished calls and the faults they lived through to figures and a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from testbed.experiment.accounting import Accounts
from testbed.experiment.measured import Measured, judged
from testbed.faults.scope import FaultScope
from testbed.lab import Lab
from testbed.ledger.ledger import draw_up
from testbed.measure.definitions import Report
from testbed.measure.failover import FEWEST_PER_WINDOW, Transition, goodput, transition_figure
from testbed.measure.match import Matched, match
from testbed.measure.reorder import reordering
from testbed.measure.streams import Level, streams
from testbed.measure.timeline import Timeline, timeline
from testbed.measure.voice import call_figures, heard_figures, packet_figures
from testbed.measure.voice_planes import plane_figures
from testbed.record import Drop, Figure
from testbed.samples import Samples
from testbed.traffic.voice.calls import VoiceCalls

#: A sampling window is this long, or longer where it would hold too few packets.
_WINDOW_NS = 20_000_000
_DIRECTIONS = {"up": "from clients to the transceiver", "down": "from the transceiver to clients"}


@dataclass(frozen=True)
class VoiceMeasured(Measured):
    """What calls came to.

    Figures are of ``all``, ``up``, ``down``, each ``flow call 3 up``; of ``plane 3`` and ``up plane 3`` and their like.
    """

    flows: VoiceCalls

    @cached_property
    def timeline(self) -> Timeline:
        """RTP sent, delivered, lost and reordered per window; both directions together, on no plane in particular."""
        return timeline(
            self.matched,
            reordering(streams(self.matched, Level.FLOW)),
            window_ns=self.window_ns,
            payload_bytes=_packet_bytes(self.matched.samples),
        )

    @property
    def contradictions(self) -> list[str]:
        """Calls that did not come about, or did not end by their client."""
        lines = []
        for call in self.flows.outcome.records.calls:
            if call.setup_ns is None:
                lines.append(f"{call.name} did not come about")
            elif call.failed:
                how = call.end.name.lower() if call.end is not None else "with its client"
                lines.append(f"{call.name} did not end as its client wished: {how}")
        return lines

    @property
    def notes(self) -> list[str]:
        """Who was where."""
        flows, places = self.flows, self.flows.places
        relays = f"relay on {' and '.join(places.relays)}"
        who = f"clients on {', '.join(places.clients)}, {relays}, transceiver on {places.transceiver}"
        return [f"{sum(flows.calls)} calls, {flows.spread} over paths; {who}"]

    def table(self) -> list[str]:
        """What a person wants to know first, a line for each direction."""
        lines = [f"{'':6}{'sent':>7}{'lost':>7}{'reordered':>11}{'silence':>10}{'failover':>10}{'MOS est.':>10}"]
        for scope in _DIRECTIONS:
            failover = self._shown("failover", scope, 1e3, " ms")
            cells = [
                f"{self._shown('sent', scope):>7}{self._shown('lost', scope):>7}",
                f"{self._shown('reordered_ratio', scope, 100, ' %'):>11}",
                f"{self._shown('silence_longest', scope, 1e3, ' ms'):>10}",
                f"{failover:>10}{self._shown('voice_mos', scope, digits=2):>10}",
            ]
            lines.append(f"{scope:6}" + "".join(cells))
        return lines

    def plane_table(self) -> list[str]:
        """What each plane did to packets sent over it, from clients to the transceiver and back.

        A packet is counted on each of its two legs, on the plane that it took there.
        """
        cells = f"{'sent':>7}{'lost':>7}{'reordered':>11}{'failover':>11}"
        lines = [f"{'':6}{'up':>4}{'':32}{'down':>4}", f"{'plane':6}{cells}{cells}"]
        for plane in range(self.flows.planes):
            line = f"{plane:<6}"
            for direction in _DIRECTIONS:
                scope = f"{direction} plane {plane}"
                line += f"{self._shown('sent', scope):>7}{self._shown('lost', scope):>7}"
                line += f"{self._shown('reordered_ratio', scope, 100, ' %'):>11}"
                line += f"{self._shown('plane_failover', scope, 1e3, ' ms'):>11}"
            lines.append(line)
        return lines

    def _shown(self, name: str, scope: str, times: float = 1, unit: str = "", digits: int | None = None) -> str:
        """A figure as text; of several, one for each fault, the first."""
        found = next((each for each in self.figures if (each.name, each.scope) == (name, scope)), None)
        if found is None or found.value is None:
            return "unknown" if found else "-"
        places = digits if digits is not None else 1 if unit == " %" else 0
        return f"{'≥ ' if found.at_least else ''}{found.value * times:.{places}f}{unit}"


def measure_voice(
    lab: Lab, flows: VoiceCalls, faults: Sequence[FaultScope] = (), drops: Sequence[Drop] = ()
) -> VoiceMeasured:
    """Compute every figure of finished calls and judge those that the lab limits.

    ``drops``: packets that filter rules dropped whose counters went with them.

    Raises UsageError for calls that are not over, InfrastructureError for logs that contradict themselves.
    """
    outcome = flows.outcome
    records = outcome.records
    report = Report(clock_step_ns=outcome.clock_step_ns)
    matched = match(records.samples)
    window_ns = _window_ns(records.samples)
    figures = [*packet_figures(matched, records.directions, report), *heard_figures(records.listeners, report)]
    failed = sum(call.failed for call in records.calls)
    figures += call_figures([call.setup_ns for call in records.calls], failed, report)
    for fault in faults:
        figures += _consequences(records.samples, records.directions, fault, window_ns, report)
    figures += _on_planes(flows, faults)
    accounts = _account(lab, flows, drops)
    figures.append(accounts.figure(report))
    return VoiceMeasured(
        flows, tuple(faults), matched, tuple(figures), judged(lab, figures, faults), window_ns, accounts
    )


def _account(lab: Lab, flows: VoiceCalls, drops: Sequence[Drop]) -> Accounts:
    """The ledger of all that hosts sent: no program counts what its kernel sends for TCP, so kernels are believed."""
    counted = flows.counted
    ledger = draw_up(lab, counted.before, counted.after, counted.hosts, smallest=counted.smallest, extra=drops)
    whole = replace(ledger, sent=ledger.others_sent, delivered=ledger.others_received, others_sent=0, others_received=0)
    return Accounts(whole, ())


def _on_planes(flows: VoiceCalls, faults: Sequence[FaultScope]) -> Iterator[Figure]:
    wire = flows.outcome.wire
    hits = [hit for fault in faults if (hit := fault.observed) is not None]
    report = Report(receiver_drops=wire.samples.receiver_drops, clock_step_ns=flows.outcome.clock_step_ns)
    return plane_figures(match(wire.samples), wire.directions, hits, report)


def _packet_bytes(samples: Samples) -> int:
    return int(np.median(samples.sent["bytes"])) if len(samples.sent) else 1


def _window_ns(samples: Samples) -> int:
    """So long that one direction's window holds enough packets."""
    sent = samples.sent["t_ns"]
    if len(sent) < 2:
        return _WINDOW_NS
    interval = 2 * int(sent.max() - sent.min()) / (len(sent) - 1)
    return max(_WINDOW_NS, round(2 * FEWEST_PER_WINDOW * interval))


def _consequences(
    samples: Samples, directions: Sequence[str], fault: FaultScope, window_ns: int, report: Report
) -> Iterator[Figure]:
    """Failover of each direction and of both: from the fault to RTP arriving as it was sent, to 90%."""
    hit = fault.observed
    if hit is None:
        return
    for name in ("all", *dict.fromkeys(directions)):
        flows = [number for number, direction in enumerate(directions) if name in ("all", direction)]
        own = samples_of(samples, flows)
        if len(own.sent) < 2:
            continue
        size = _packet_bytes(own)
        span = int(own.sent["t_ns"].max() - own.sent["t_ns"].min())
        offered = (len(own.sent) - 1) * size * 8e9 / span
        matched: Matched = match(own)
        series = goodput(matched, origin_ns=hit.t_ns, window_ns=window_ns, payload_bytes=size)
        found = transition_figure(series, Transition(hit, "failover", offered), flows=own.flows, report=report)
        yield replace(found, scope=name)


def samples_of(samples: Samples, flows: Sequence[int]) -> Samples:
    """The part of some flows."""
    sent, arrivals = samples.sent, samples.arrivals
    return replace(
        samples, sent=sent[np.isin(sent["flow"], flows)], arrivals=arrivals[np.isin(arrivals["flow"], flows)]
    )
