"""Every figure's unit, definition and what makes it unknown; ``docs/metrics.md`` explains them to users."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.record import Figure

#: A step of CLOCK_REALTIME below this cannot be told from the error of reading two clocks back to back.
CLOCK_STEP_NOTICED_NS = 100_000

#: RFC 4737 §5: the duplicate-ACK thresholds that n-reordering is reported for.
N_REORDERING = range(1, 17)


@dataclass(frozen=True, slots=True)
class Definition:
    """What one figure means.

    Attributes:
        unit: of its value.
        text: the definition, with its source.
        counts_arrivals: a packet dropped by the receiver's own socket falsifies it.
        reads_clock: a step of the clock during the run falsifies it.
    """

    unit: str
    text: str
    counts_arrivals: bool = False
    reads_clock: bool = False


def _loss(unit: str, text: str) -> Definition:
    return Definition(unit, text, counts_arrivals=True)


def _time(text: str, *, arrivals: bool = False) -> Definition:
    return Definition("s", text, counts_arrivals=arrivals, reads_clock=True)


_EARLIEST = "the earliest arrival with a larger sequence number"

DEFINITIONS: dict[str, Definition] = {
    "sent": Definition("packets", "packets offered, those refused by the sender's own kernel included"),
    "lost": _loss("packets", "packets sent without an arrival within the waiting time (RFC 7680)"),
    "loss_ratio": _loss("ratio", "packets lost over packets sent (RFC 7680)"),
    "lost_outside_faults": Definition(
        "packets",
        "packets lost though no fault of the run was in force on their path when they were sent; next to the edge of "
        "a fault one packet per EV is excused",
        counts_arrivals=True,
        reads_clock=True,
    ),
    "refused": Definition("packets", "packets the sender's own kernel refused; they count as lost too"),
    "late": Definition("packets", "arrivals after the waiting time; their packets count as lost (RFC 7680)"),
    "foreign": Definition("packets", "arrivals that match no packet sent"),
    "wrong_plane": Definition("packets", "packets received on another plane than they were sent on"),
    "loss_periods": _loss("count", "runs of consecutive losses in a stream (RFC 3357 loss periods)"),
    "loss_period_p50": _loss("packets", "median length of a loss period (RFC 3357)"),
    "loss_period_max": _loss("packets", "length of the longest loss period (RFC 3357)"),
    "loss_distance_min": _loss("packets", "smallest distance between successive losses of a stream (RFC 3357)"),
    "loss_distance_p50": _loss("packets", "median distance between successive losses of a stream (RFC 3357)"),
    "duplicates": _loss("packets", "second and later arrivals of a packet within the waiting time (RFC 5560)"),
    "duplication_fraction": _loss("ratio", "duplicates over packets received (RFC 5560)"),
    "replicated_ratio": _loss("ratio", "packets received more than once over packets received (RFC 5560)"),
    "reordered": _loss("packets", "packets received after one with a larger sequence number (RFC 4737 §3)"),
    "reordered_ratio": _loss("ratio", "packets reordered over packets received (RFC 4737 §4.1)"),
    "blocked_time": Definition(
        "s", "packets lost over the rate they were offered at (RFC 6413)", counts_arrivals=True, reads_clock=True
    ),
    "outage": _time(
        "longest gap between arrivals of a constant-rate stream, minus its sending interval (RFC 6201)", arrivals=True
    ),
    "outage_disagreement": _time(
        "difference between loss-derived and gap-derived outage of the EV on which they differ most", arrivals=True
    ),
    "delay_min": _time("smallest one-way delay (RFC 7679)"),
    "delay_p50": _time("median one-way delay (RFC 7679)"),
    "delay_p90": _time("90th percentile of one-way delay (RFC 7679)"),
    "delay_p99": _time("99th percentile of one-way delay (RFC 7679)"),
    "delay_p99.9": _time("99.9th percentile of one-way delay (RFC 7679)"),
    "delay_max": _time("largest one-way delay (RFC 7679)"),
    "delay_variation": _time("packet delay variation: 99.9th percentile minus smallest one-way delay (RFC 5481)"),
    "unexplained_packets": Definition(
        "count", "packets that went into a part of the fabric and were neither delivered nor dropped at a named place"
    ),
    "plane_share": _loss("ratio", "packets delivered by a plane over packets delivered by all"),
    "plane_imbalance": _loss("ratio", "largest plane's deliveries over the mean of all planes"),
    "goodput": Definition(
        "bit/s",
        "payload bits received for the first time, per second between the first and last sending",
        counts_arrivals=True,
        reads_clock=True,
    ),
    "failover": _time(
        "from the event to the first window of goodput at 90% or more of what the remaining paths can carry, "
        "where it stays for 5 windows",
        arrivals=True,
    ),
    "plane_failover": _time(
        "from the event to the first packet sent over the plane from which on no more than a tenth of any 20 in a row "
        "are lost",
        arrivals=True,
    ),
    "failover_undisturbed": _time(
        "95th percentile of what failover comes to at moments at which no fault was in force and every path in use",
        arrivals=True,
    ),
    "restore": _time(
        "from the end of the fault to the first window of goodput at 90% or more of what the healed paths can "
        "carry, where it stays for 5 windows",
        arrivals=True,
    ),
    "detect": _time("from the event to the first change of the sender's state that names the path"),
    "path_restore": _time("from the end of the fault until the sender uses every EV again that it had given up for it"),
    "messages": Definition("count", "messages that were wholly acknowledged"),
    "messages_failed": Definition("count", "messages that ended with an error, those flushed after it included"),
    "mismatches": Definition("count", "messages that arrived with a wrong byte, in a wrong place or out of order"),
    "retransmissions": Definition("packets", "packets sent again"),
    "retransmission_ratio": Definition("ratio", "packets sent again over packets sent for the first time"),
    "evs_retired": Definition(
        "count", "times an EV left the active set for a loss, a timeout or a port that went down"
    ),
}
_ESTIMATE = "estimate of the E-model (ITU-T G.107) as if it were G.711, of the worst listener"
DEFINITIONS |= {
    "rtp_jitter": _time("largest interarrival jitter of a flow (RFC 3550 §6.4.1)", arrivals=True),
    "late_for_playout": Definition("packets", "RTP packets that arrived when the time to play them was over"),
    "silence_longest": _time(
        "longest time between a listener's first frame and the end of the call in which nothing that was sent came out"
    ),
    "concealed_ratio": Definition("ratio", "time for which playout made something up over all time it played"),
    "mouth_to_ear": _time(
        "median over frames of the time from a packet's sending to its playing, and the length of a frame; of the "
        "slowest listener"
    ),
    "voice_r": Definition("R", f"rating factor: {_ESTIMATE}", reads_clock=True),
    "voice_mos": Definition("MOS", f"mean opinion score: {_ESTIMATE}", reads_clock=True),
    "calls": Definition("count", "calls that came about"),
    "calls_failed": Definition("count", "calls that did not come about, or ended otherwise than by their client"),
    "setup_time_p50": _time("median time from a client's offer to DTLS done"),
    "setup_time_max": _time("longest time from a client's offer to DTLS done"),
}
for _q in ("p50", "p99", "max"):
    DEFINITIONS[f"message_time_{_q}"] = _time(f"{_q} of the time from posting a message to its completion")
    DEFINITIONS[f"reordering_extent_{_q}"] = _loss(
        "packets", f"{_q} over reordered packets of the arrivals since {_EARLIEST} (RFC 4737 §4.2)"
    )
    DEFINITIONS[f"reordering_late_time_{_q}"] = _time(
        f"{_q} over reordered packets of the time since {_EARLIEST} (RFC 4737 §4.3)", arrivals=True
    )
for _n in N_REORDERING:
    DEFINITIONS[f"n_reordering_{_n}"] = _loss(
        "ratio",
        f"packets whose {_n} preceding arrivals all have larger sequence numbers, over packets received (RFC 4737 §5)",
    )


@dataclass(frozen=True, slots=True)
class Report:
    """Makes figures, and makes those unknown that this run cannot know.

    Attributes:
        receiver_drops: packets the receivers' own sockets dropped.
        clock_step_ns: how far CLOCK_REALTIME stepped during the run.
    """

    receiver_drops: int = 0
    clock_step_ns: int = 0

    def figure(
        self,
        name: str,
        value: float | None,
        samples: int,
        scope: str,
        *,
        resolution: float | None = None,
        note: str = "",
        at_least: bool = False,
    ) -> Figure:
        """One figure of ``DEFINITIONS``; ``value`` is in its unit."""
        definition = DEFINITIONS[name]
        spoilt = self._spoilt(definition)
        if spoilt:
            value, at_least = None, False
            note = f"{spoilt}; {note}" if note else spoilt
        return Figure(
            name=name,
            value=None if value is None else float(value),
            unit=definition.unit,
            definition=definition.text,
            samples=int(samples),
            scope=scope,
            resolution=None if value is None or resolution is None else float(resolution),
            note=note,
            at_least=at_least,
        )

    def _spoilt(self, definition: Definition) -> str:
        if definition.counts_arrivals and self.receiver_drops > 0:
            return f"unknown: the receivers' own sockets dropped {self.receiver_drops} packets"
        if definition.reads_clock and abs(self.clock_step_ns) >= CLOCK_STEP_NOTICED_NS:
            return f"unknown: the clock stepped by {self.clock_step_ns / 1e9:.6f} s during the run"
        return ""
