"""Figures of MRC transfers, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from testbed.measure.definitions import Report
from testbed.measure.failover import Transition, placed_goodput, transition_figure
from testbed.measure.transfers import (
    message_figures,
    path_restore_figure,
    placed_figures,
    retransmission_figures,
)
from testbed.record import Event, Figure
from testbed.samples import ARRIVAL, SENT, FlowMessages, SampleFlag

S = 1_000_000_000
MS = 1_000_000
REPORT = Report()
AGAIN, PLACED = int(SampleFlag.RETRANSMITTED), int(SampleFlag.PLACED)


def by_scope(figures: list[Figure]) -> dict[tuple[str, str], float | None]:
    return {(figure.name, figure.scope): figure.value for figure in figures}


def test_messages_of_each_flow_and_of_all() -> None:
    one = FlowMessages("a>b", 4, 0, 0, np.array([1, 2, 3, 4]) * MS)
    other = FlowMessages("c>d", 0, 3, 1, np.zeros(0, np.int64))
    found = by_scope(list(message_figures([one, other], REPORT)))
    assert found["messages", "all"] == 4
    assert found["messages_failed", "all"] == found["messages_failed", "flow c>d"] == 3
    assert found["mismatches", "flow c>d"] == 1
    assert found["message_time_p50", "flow a>b"] == 0.002
    assert found["message_time_max", "all"] == 0.004
    assert found["message_time_p99", "all"] is None  # 100 messages are needed.
    assert found["message_time_max", "flow c>d"] is None


def sent(*rows: tuple[int, int]) -> np.ndarray:
    """(flow, flags), one packet a millisecond."""
    return np.array([(i, i * MS, flow, 0, 0, 0, flags, 0, 1000) for i, (flow, flags) in enumerate(rows)], SENT)


def arrived(*rows: tuple[float, int, int, int, int]) -> np.ndarray:
    """(ms, flow, plane, flags, bytes)."""
    return np.array(
        [
            (i, round(ms * MS), flow, 0, plane, flags, 0, octets)
            for i, (ms, flow, plane, flags, octets) in enumerate(rows)
        ],
        ARRIVAL,
    )


def test_packets_sent_again_over_those_sent_once() -> None:
    rows = sent((0, 0), (0, 0), (0, 0), (0, 0), (0, AGAIN), (1, 0))
    found = by_scope(list(retransmission_figures(rows, ["a>b", "c>d"], REPORT)))
    assert found["retransmissions", "all"] == found["retransmissions", "flow a>b"] == 1
    assert found["retransmission_ratio", "flow a>b"] == 0.25
    assert found["retransmission_ratio", "all"] == 0.2
    assert found["retransmissions", "flow c>d"] == 0


def test_goodput_counts_bytes_placed_whichever_transmission_brought_them() -> None:
    rows = sent(*[(0, 0)] * 11)  # 10 ms from the first to the last.
    came = arrived((1, 0, 0, PLACED, 1000), (2, 0, 1, PLACED | AGAIN, 1000), (3, 0, 1, 0, 1000), (4, 0, 1, AGAIN, 1000))
    found = by_scope(list(placed_figures(rows, came, ["a>b"], [0, 1], REPORT)))
    assert found["goodput", "all"] == pytest.approx(2000 * 8 / 0.010)
    assert found["goodput", "plane 0"] == found["goodput", "plane 1"] == pytest.approx(1000 * 8 / 0.010)


def test_failover_on_placed_bytes() -> None:
    """125 bytes every 0.1 ms are 10 Mbit/s; nothing is placed from 300 to 350 ms, though duplicates arrive."""
    rows = [(n / 10, 0, 0, 0 if 3000 <= n < 3500 else PLACED, 125) for n in range(10_000)]
    series = placed_goodput(arrived(*rows), origin_ns=300 * MS, window_ns=5 * MS, end_ns=S)
    wanted = Transition(Event(300 * MS, "fault", "p0-t1-0", "stopped"), "failover", 10e6)
    figure = transition_figure(series, wanted, flows=("a>b",), report=REPORT)
    assert figure.value == pytest.approx(0.050)
    assert figure.resolution == pytest.approx(0.005)


def change(ms: float, ev: int, what: str) -> Event:
    return Event(round(ms * MS), "traffic", f"flow a>b ev 0x{ev:04x}", what)


def test_a_path_is_restored_when_the_last_ev_given_up_is_back() -> None:
    fault, healed = Event(100 * MS, "fault", "p0-t1-0", "stopped"), Event(600 * MS, "fault", "p0-t1-0", "forwarding")
    retired = [change(50, 9, "assumed bad"), change(105, 1, "assumed bad"), change(106, 2, "assumed bad")]
    returned = [change(60, 9, "good"), change(640, 1, "good"), change(655, 2, "good")]
    figure = path_restore_figure(fault, healed, retired, returned, REPORT)
    assert figure.value == pytest.approx(0.055)
    assert figure.samples == 2

    missing = path_restore_figure(fault, healed, retired, returned[:2], REPORT)
    assert missing.value is None
    assert "1 of 2 EVs not back, such as flow a>b ev 0x0002" in missing.note

    # What is given up after the end belongs to another fault.
    again = [*retired, change(660, 1, "assumed bad"), change(670, 7, "assumed bad")]
    assert path_restore_figure(fault, healed, again, returned, REPORT).value == pytest.approx(0.055)
    assert path_restore_figure(fault, healed, retired[:1], returned, REPORT).value == 0
