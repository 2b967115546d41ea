"""Figures from libiperf's reports: what adds up, what is a bound, what is unknown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from testbed.record import Event
from testbed.traffic.iperf3_agent import AgentResult
from testbed.traffic.iperf3_result import DEFINITIONS, FlowResult, flow_result, totals

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGUN = Event.between("traffic", "h0>h3", "flowing", 1, 2)
CPU = {"host_total": 25.0, "remote_total": 50.0}


def report(protocol: str, end: dict[str, Any], *intervals: dict[str, Any]) -> dict[str, Any]:
    return {
        "start": {"test_start": {"protocol": protocol}},
        "intervals": [{"sum": interval} for interval in intervals],
        "end": {**end, "cpu_utilization_percent": CPU},
    }


def udp(offered: int, last: int, lost: int, drops: int = 0) -> FlowResult:
    sent = {"seconds": 1.0, "bytes": offered * 1000, "bits_per_second": offered * 8e3, "packets": offered}
    received = {**sent, "bytes": (last - lost) * 1000, "packets": last, "lost_packets": lost, "jitter_ms": 0.5}
    end = {"sum_sent": sent, "sum_received": received}
    interval = {"start": 0, "end": 1.0, "bytes": (last - lost) * 1000, "lost_packets": lost, "sender": False}
    return flow_result(
        "h0>h3",
        AgentResult(report("UDP", end), "", "iperf 3.12", 0),
        AgentResult(report("UDP", end, interval), "", "iperf 3.12", drops),
        BEGUN,
    )


def tcp(sent: dict[str, Any] | None) -> FlowResult:
    end = {"sum_received": {"bytes": 900, "bits_per_second": 7200.0}} | ({"sum_sent": sent} if sent else {})
    first = {"start": 0, "end": 0.5, "bytes": 600, "retransmits": 2, "sender": True}
    both = AgentResult(report("TCP", end, first), "", "iperf 3.12", 0)
    return flow_result("h0>h3", both, both, BEGUN)


def test_loss_is_what_is_missing_before_the_last_one_received() -> None:
    flow = udp(offered=100, last=100, lost=20)
    (lost,) = [figure for figure in flow.figures if figure.name == "iperf3_lost"]
    assert (lost.value, lost.samples, lost.at_least, lost.note) == (20, 100, False, "")
    assert flow.value("iperf3_loss_ratio") == 0.2
    assert flow.value("iperf3_jitter") == 0.0005
    assert flow.received[0].lost == 20
    assert flow.received[0].rate == 640_000


def test_with_a_tail_loss_is_a_lower_bound() -> None:
    flow = udp(offered=100, last=90, lost=9)
    (lost,) = [figure for figure in flow.figures if figure.name == "iperf3_lost"]
    assert (lost.value, lost.at_least) == (9, True)
    assert "10 more were not seen" in lost.note
    assert flow.value("iperf3_tail") == 10
    assert flow.value("iperf3_loss_ratio") == 0.1


def test_loss_is_unknown_when_the_receivers_own_sockets_dropped() -> None:
    flow = udp(offered=100, last=90, lost=9, drops=3)
    for name in ("iperf3_lost", "iperf3_loss_ratio"):
        (figure,) = [figure for figure in flow.figures if figure.name == name]
        assert figure.value is None
        assert not figure.at_least
        assert "dropped 3 datagrams" in figure.note
    assert flow.value("iperf3_packets") == 100


def test_nothing_received_at_all_has_no_ratio() -> None:
    assert udp(offered=100, last=0, lost=0).value("iperf3_loss_ratio") is None


def test_what_libiperf_does_not_report_is_unknown() -> None:
    flow = tcp(None)
    (bytes_sent,) = [figure for figure in flow.figures if figure.name == "iperf3_sent_bytes"]
    assert bytes_sent.value is None
    assert "iperf 3.12 does not report it" in bytes_sent.note
    (total,) = [figure for figure in totals([flow, tcp({"bytes": 1000})]) if figure.name == "iperf3_sent_bytes"]
    assert total.value is None
    assert "unknown for 1 of 2 flows" in total.note


def test_totals_add_up_and_keep_bounds() -> None:
    found = {figure.name: figure for figure in totals([udp(100, 100, 20), udp(100, 90, 9)])}
    assert (found["iperf3_lost"].value, found["iperf3_lost"].at_least) == (29, True)
    assert found["iperf3_packets"].value == 200
    assert "iperf3_retransmits" not in found


def test_a_senders_interval_has_retransmits_and_the_cpu_is_of_one_processor() -> None:
    flow = tcp({"seconds": 1.0, "bytes": 1000, "bits_per_second": 8000.0, "retransmits": 2})
    assert flow.sent[0].retransmits == 2
    assert flow.sent[0].lost is None
    assert flow.sent[0].rate == 9600
    assert (flow.value("iperf3_sender_cpu"), flow.value("iperf3_receiver_cpu")) == (0.25, 0.5)


@pytest.mark.parametrize("flow", [udp(100, 90, 9), tcp({"bytes": 1})])
def test_every_figure_is_defined(flow: FlowResult) -> None:
    for figure in flow.figures:
        assert (figure.unit, figure.definition) == DEFINITIONS[figure.name]
        assert figure.scope == "flow h0>h3"


def test_every_figure_is_documented_with_its_unit() -> None:
    units = {}
    for row in METRICS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| `iperf3_"):
            units.update(dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1]))
    assert units == {name: unit for name, (unit, _) in DEFINITIONS.items()}
