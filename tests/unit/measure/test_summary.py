"""All figures together: scopes, what is unknown when, and that users can look each of them up."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from testbed.errors import UsageError
from testbed.measure.definitions import CLOCK_STEP_NOTICED_NS, DEFINITIONS
from testbed.measure.failover import Transition
from testbed.measure.summary import summarise
from testbed.record import Event, Figure
from testbed.samples import Samples
from tests.unit.measure.traces import MS, T0, Arrival, Sent, samples

METRICS = Path(__file__).parents[3] / "docs" / "metrics.md"


def run(*, receiver_drops: int = 0) -> Samples:
    """Two flows of 2000 packets over 4 EVs on 2 planes; plane 1 is dead from 200 to 250 ms.

    Its two EVs take 1 and 3 ms, so that 16 of 20 packets of each 10 ms arrive in the first window after it
    healed: too few for plane 1 to be back, and with plane 0's 20 just enough, 36 of 40, for both together.
    """
    sent, arrivals = [], []
    for n in range(2000):
        for flow in range(2):
            ev = n % 4
            packet = Sent(n, n * MS // 2, flow, ev, ev % 2)
            sent.append(packet)
            if ev % 2 and 200 * MS <= packet.t < 250 * MS:
                continue
            arrivals.append(Arrival(n, packet.t + (4 - ev) * MS, flow, ev, ev % 2))
    arrivals += [arrivals[5], Arrival(77_777, MS), Arrival(0, MS, flow=9)]
    arrivals.sort(key=lambda a: a.t)
    return samples(sent, arrivals, flows=("h0>h2", "h1>h3"), receiver_drops=receiver_drops)


EVENTS = (
    Event(T0 + 200 * MS, "fault", "p1-t0-0", "issued", 1 * MS),
    Event(T0 + 203 * MS, "tables", "ev 0x0001", "withdrawn"),
    Event(T0 + 207 * MS, "traffic", "ev 0x0001", "suspect"),
)
#: 4000 packets/s of 1000 bytes.
TRANSITIONS = (
    Transition(EVENTS[0], "failover", 32e6, paths=frozenset({"ev 0x0001", "ev 0x0003"})),
    Transition(Event(T0 + 250 * MS, "fault", "p1-t0-0", "healed"), "restore", 16e6, plane=1),
)


def figures(seen: Samples, clock_step_ns: int = 0) -> dict[tuple[str, str], Figure]:
    made = summarise(seen, EVENTS, transitions=TRANSITIONS, payload_bytes=1000, clock_step_ns=clock_step_ns)
    found = {(f.name, f.scope): f for f in made}
    assert len(found) == len(made), "a figure is reported twice"
    return found


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Figure]:
    return figures(run())


@pytest.mark.parametrize(
    ("name", "scope", "value"),
    [
        ("sent", "all", 4000),
        ("lost", "all", 100),
        ("loss_ratio", "all", 0.025),
        ("loss_ratio", "plane 1", 0.05),
        ("lost", "plane 0", 0),
        ("lost", "flow h1>h3", 50),
        ("lost", "flow h0>h2 ev 0x0001", 25),
        ("loss_periods", "flow h0>h2", 50),
        ("loss_periods", "plane 1", 2),
        ("loss_period_max", "plane 1", 50),
        ("foreign", "all", 2),
        ("foreign", "flow h0>h2", 1),
        ("duplicates", "all", 1),
        ("blocked_time", "flow h0>h2 ev 0x0003", 0.050),
        ("outage", "flow h0>h2 ev 0x0003", 0.050),
        ("outage", "flow h0>h2 ev 0x0002", 0),
        ("outage_disagreement", "plane 1", 0),
        ("plane_share", "plane 0", 2000 / 3900),
        ("goodput", "all", 3900 * 8000),
        ("delay_min", "plane 1", 0.001),
        ("delay_max", "plane 1", 0.003),
        ("failover", "all", 0.050),
        ("restore", "plane 1", 0.010),
        ("detect", "all", 0.007),
    ],
)
def test_values(found: dict[tuple[str, str], Figure], name: str, scope: str, value: float) -> None:
    figure = found[name, scope]
    assert figure.value == pytest.approx(value, rel=1e-3, abs=1e-9)
    assert figure.unit == DEFINITIONS[name].unit


def test_scopes(found: dict[tuple[str, str], Figure]) -> None:
    evs = [f"flow {flow} ev 0x{ev:04x}" for flow in ("h0>h2", "h1>h3") for ev in range(4)]
    assert {scope for _, scope in found} == {"all", "plane 0", "plane 1", "flow h0>h2", "flow h1>h3", *evs}
    per_ev = {"sent", "lost", "loss_ratio", "refused", "late", "blocked_time", "outage", "delay_p50", "delay_p99"}
    assert {name for name, scope in found if scope == evs[0]} == per_ev


def test_both_outage_methods_are_compared_on_the_evs_of_the_scope(found: dict[tuple[str, str], Figure]) -> None:
    assert "flow h0>h2 ev 0x0001: 0.050000 s from loss, 0.050000 s" in found["outage_disagreement", "plane 1"].note
    assert "flow h0>h2 ev 0x0000: 0.000000 s from loss, 0.000000 s" in found["outage_disagreement", "plane 0"].note
    assert found["outage_disagreement", "flow h1>h3"].samples == 4


def test_every_figure_carries_what_it_takes_to_trust_it(found: dict[tuple[str, str], Figure]) -> None:
    for figure in found.values():
        assert figure.definition
        assert figure.value is not None or figure.note
        assert figure.value is None or isinstance(figure.value, float)
        assert isinstance(figure.samples, int)


@pytest.mark.parametrize(
    ("receiver_drops", "clock_step", "unknown", "known", "why"),
    [
        (
            3,
            0,
            {"lost", "loss_ratio", "blocked_time", "outage", "failover", "reordered_ratio"},
            {"sent", "delay_p50"},
            "3 packets",
        ),
        (0, 2 * MS, {"delay_p50", "delay_max", "outage", "failover", "detect"}, {"lost", "loss_ratio"}, "0.002000 s"),
        (0, -2 * MS, {"delay_p50", "delay_variation"}, {"lost"}, "-0.002000 s"),
    ],
)
def test_what_a_run_cannot_know_is_unknown_with_the_reason(
    receiver_drops: int, clock_step: int, unknown: set[str], known: set[str], why: str
) -> None:
    found = figures(run(receiver_drops=receiver_drops), clock_step)
    for name in unknown:
        figure = found[name, "all"]
        assert figure.value is None, name
        assert figure.note.startswith("unknown: ")
        assert why in figure.note
    for name in known:
        assert found[name, "all"].value is not None, name


def test_a_clock_step_within_the_error_of_reading_it_is_none() -> None:
    assert figures(run(), CLOCK_STEP_NOTICED_NS - 1)["delay_p50", "all"].value is not None


def test_transitions_need_a_payload_size() -> None:
    with pytest.raises(UsageError, match="need goodput"):
        summarise(run(), EVENTS, transitions=TRANSITIONS)


@pytest.mark.parametrize("flows", [(), ("h0>h1",)])
def test_no_packets_at_all(flows: tuple[str, ...]) -> None:
    found = {(f.name, f.scope): f for f in summarise(samples([], [], flows=flows), payload_bytes=1000)}
    assert found["sent", "all"].value == 0
    assert found["loss_ratio", "all"].value is None
    assert found["delay_p50", "all"].value is None


#: From test_transfers.py; lost_outside_faults is from the dead windows, test_dead.py.
TRANSFERS = {
    *(f"message_time_{q}" for q in ("p50", "p99", "max")),
    *("messages", "messages_failed", "mismatches"),
    *(
        "retransmissions",
        "retransmission_ratio",
        "evs_retired",
        "path_restore",
        "failover_undisturbed",
        "plane_failover",
    ),
}


#: From test_voice.py.
VOICE = {
    *("rtp_jitter", "late_for_playout", "silence_longest", "concealed_ratio", "mouth_to_ear", "voice_r", "voice_mos"),
    *("calls", "calls_failed", "setup_time_p50", "setup_time_max"),
}


def documented() -> dict[str, tuple[str, str]]:
    """Unit and definition of each name in the tables of docs/metrics.md."""
    out = {}
    for row in METRICS.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| `") and len(cells) == 5:
            for name in re.findall(r"`([^`]+)`", cells[0]):
                out[name] = (cells[1], cells[2])
    return out


def test_every_figure_is_documented_and_nothing_else(found: dict[tuple[str, str], Figure]) -> None:
    table = documented()
    # unexplained_packets is the ledger's, which has more than samples to go by.
    emitted = {name for name, _ in found} | {"lost_outside_faults", "unexplained_packets"} | TRANSFERS | VOICE
    assert emitted == set(DEFINITIONS), "this run should emit every figure there is"
    assert set(table) == emitted
    for name, (unit, text) in table.items():
        assert unit == DEFINITIONS[name].unit, name
        assert len(text) > 20, name


def test_figures_do_not_depend_on_how_flows_are_interleaved(found: dict[tuple[str, str], Figure]) -> None:
    seen = run()
    by_flow = np.argsort(seen.sent["flow"], kind="stable")
    arrived = np.argsort(seen.arrivals["flow"], kind="stable")
    grouped = Samples(seen.flows, seen.sent[by_flow], seen.arrivals[arrived], seen.waiting_time_ns)
    assert figures(grouped) == found
