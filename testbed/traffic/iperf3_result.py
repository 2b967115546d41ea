"""What an iperf3 test came to: figures, each with its definition, and the rate over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from testbed.record import Event, Figure
from testbed.traffic.iperf3_agent import AgentResult

#: Figure → (unit, definition), as ``docs/metrics.md`` has them.
DEFINITIONS: Final[Mapping[str, tuple[str, str]]] = {
    "iperf3_seconds": ("s", "from the start of the test to its end, at the sender"),
    "iperf3_sent_bytes": ("bytes", "payload the sender handed to its kernel"),
    "iperf3_received_bytes": ("bytes", "payload the receiver took from its kernel"),
    "iperf3_sent_rate": ("bit/s", "payload bits the sender handed to its kernel over the sender's time"),
    "iperf3_received_rate": ("bit/s", "payload bits the receiver took from its kernel over the receiver's time"),
    "iperf3_retransmits": ("count", "TCP segments the sender's kernel sent again (tcpi_total_retrans)"),
    "iperf3_packets": ("packets", "UDP datagrams the sender handed to its kernel"),
    "iperf3_lost": ("packets", "UDP datagrams missing before the last one the receiver took from its kernel"),
    "iperf3_tail": ("packets", "UDP datagrams sent after that one: lost, or unread when the test ended"),
    "iperf3_loss_ratio": ("ratio", "iperf3_lost over iperf3_packets without iperf3_tail"),
    "iperf3_jitter": ("s", "smoothed difference of the transit times of successive UDP datagrams (RFC 3550 §6.4.1)"),
    "iperf3_sender_cpu": ("ratio", "processor time of the sending process over time; 1 is one processor"),
    "iperf3_receiver_cpu": ("ratio", "processor time of the receiving process over time; 1 is one processor"),
}

_Report = Mapping[str, Any] | None

#: libiperf counts in whole units and tells times in microseconds.
_MICROSECOND = 1e-6


@dataclass(frozen=True)
class Interval:
    """One reporting interval of one end, all streams together.

    Attributes:
        start_s: since the start of the test at this end.
        end_s: the same.
        bytes: payload handed to, or taken from, the kernel.
        retransmits: TCP segments sent again; None for a receiver and for UDP.
        lost: UDP datagrams missing between those received; None for a sender and for TCP.
    """

    start_s: float
    end_s: float
    bytes: int
    retransmits: int | None
    lost: int | None

    @property
    def rate(self) -> float:
        """bit/s."""
        length = self.end_s - self.start_s
        return self.bytes * 8 / length if length > 0 else 0.0


@dataclass(frozen=True)
class FlowResult:
    """What one flow came to.

    Attributes:
        name: ``h0>h3``.
        figures: those of :data:`DEFINITIONS` that its protocol has.
        sent: the sender's intervals.
        received: the receiver's intervals.
        begun: when data was first seen to arrive on every stream.
        version: of libiperf.
    """

    name: str
    figures: tuple[Figure, ...]
    sent: tuple[Interval, ...]
    received: tuple[Interval, ...]
    begun: Event
    version: str

    def value(self, name: str) -> float | None:
        """A figure's value in its unit; None where this version of libiperf does not tell it."""
        return next(figure.value for figure in self.figures if figure.name == name)


def flow_result(name: str, client: AgentResult, server: AgentResult, begun: Event) -> FlowResult:
    """Read the reports of both ends of one test that ended well."""
    end = client.report["end"]
    udp = client.report["start"]["test_start"]["protocol"] == "UDP"
    sent_sum, received_sum = end.get("sum_sent"), end.get("sum_received")
    sent = tuple(_interval(entry["sum"]) for entry in client.report["intervals"])
    received = tuple(_interval(entry["sum"]) for entry in server.report["intervals"])
    make = _Figures(f"flow {name}", client.version)
    figures = [
        make("iperf3_seconds", _of(sent_sum, "seconds"), 1, _MICROSECOND),
        make("iperf3_sent_bytes", _of(sent_sum, "bytes"), len(sent)),
        make("iperf3_received_bytes", _of(received_sum, "bytes"), len(received)),
        make("iperf3_sent_rate", _of(sent_sum, "bits_per_second"), len(sent)),
        make("iperf3_received_rate", _of(received_sum, "bits_per_second"), len(received)),
    ]
    if udp:
        figures += _udp_figures(make, sent_sum, received_sum, server.socket_drops)
    else:
        figures.append(make("iperf3_retransmits", _of(sent_sum, "retransmits"), len(sent)))
    load = end["cpu_utilization_percent"]
    figures += [
        make("iperf3_sender_cpu", load["host_total"] / 100, 1),
        make("iperf3_receiver_cpu", load["remote_total"] / 100, 1),
    ]
    return FlowResult(name, tuple(figures), sent, received, begun, client.version)


def totals(flows: Sequence[FlowResult]) -> list[Figure]:
    """The figures of all flows together that add up; unknown where one of them is."""
    figures = []
    for name in (
        "sent_bytes",
        "received_bytes",
        "sent_rate",
        "received_rate",
        "retransmits",
        "packets",
        "lost",
        "tail",
    ):
        parts = [figure for flow in flows for figure in flow.figures if figure.name == f"iperf3_{name}"]
        if parts:
            known = [figure.value for figure in parts if figure.value is not None]
            note = "" if len(known) == len(parts) else f"unknown for {len(parts) - len(known)} of {len(parts)} flows"
            total = None if note else sum(known)
            unit, definition = DEFINITIONS[f"iperf3_{name}"]
            samples = sum(figure.samples for figure in parts)
            bound = total is not None and any(figure.at_least for figure in parts)
            figures.append(Figure(f"iperf3_{name}", total, unit, definition, samples, note=note, at_least=bound))
    return figures


def _udp_figures(make: _Figures, sent_sum: _Report, received_sum: _Report, drops: int) -> list[Figure]:
    offered, jitter = _of(sent_sum, "packets"), _of(received_sum, "jitter_ms")
    last, lost = _of(received_sum, "packets"), _of(received_sum, "lost_packets")
    tail = None if offered is None or last is None else offered - last
    ratio = lost / last if lost is not None and last else None
    samples = int(last or 0)
    spoilt = f"unknown: the receiving host's own sockets dropped {drops} datagrams" if drops else ""
    if spoilt:
        lost = ratio = None
    # The control connection tells the receiver to stop while datagrams may still wait in its socket.
    note = spoilt or (f"{tail:.0f} more were not seen before the test ended" if tail else "")
    bound = bool(tail) and not spoilt
    return [
        make("iperf3_packets", offered, int(offered or 0)),
        make("iperf3_lost", lost, samples, note=note, at_least=bound),
        make("iperf3_tail", tail, int(offered or 0)),
        make("iperf3_loss_ratio", ratio, samples, None if ratio is None or last is None else 1 / last, note=spoilt),
        make("iperf3_jitter", None if jitter is None else jitter / 1000, samples, _MICROSECOND),
    ]


class _Figures:
    """Makes the figures of one flow."""

    def __init__(self, scope: str, version: str) -> None:
        self._scope = scope
        self._version = version

    def __call__(
        self,
        name: str,
        value: float | None,
        samples: int,
        resolution: float | None = None,
        note: str = "",
        at_least: bool = False,
    ) -> Figure:
        unit, definition = DEFINITIONS[name]
        if value is None:
            note, resolution, at_least = note or f"unknown: {self._version} does not report it", None, False
        return Figure(name, value, unit, definition, samples, self._scope, resolution, note, at_least)


def _of(report: _Report, key: str) -> float | None:
    value = None if report is None else report.get(key)
    return None if value is None else float(value)


def _interval(report: Mapping[str, Any]) -> Interval:
    retransmits = report.get("retransmits") if report.get("sender") else None
    return Interval(report["start"], report["end"], report["bytes"], retransmits, report.get("lost_packets"))
