"""Failover, restore and detect time, from the event's own stamp."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from testbed.errors import UsageError
from testbed.measure.definitions import Report
from testbed.measure.failover import Transition, detect_figure, goodput, transition_figure
from testbed.measure.match import Matched, match
from testbed.record import Event, Figure
from tests.unit.measure.traces import MS, T0, samples, steady

F64 = npt.NDArray[np.float64]
#: One packet of 1000 payload bytes every 0.1 ms: 80 Mbit/s, 100 packets in a window of 10 ms.
EVERY, PAYLOAD, FULL, WINDOW = MS // 10, 1000, 80e6, 10 * MS


def event(ms: float, uncertainty_ms: float = 0, subject: str = "p0-t0-0", what: str = "issued") -> Event:
    return Event(T0 + round(ms * MS), "fault", subject, what, round(uncertainty_ms * MS))


def lossy(*gaps: tuple[int, int], evs: int = 1) -> Matched:
    """A second of traffic in which the packets offered in each of the gaps (ms) are lost."""
    lost = {n for a, b in gaps for n in range(a * 10, b * 10)}
    return match(samples(*steady(10_000, EVERY, delay=MS // 20, lost=lost, evs=evs, planes=evs)))


def failover(matched: Matched, at: Event, expected: float | F64 = FULL, window: int = WINDOW) -> Figure:
    return timed(matched, Transition(at, "failover", expected), window)


def timed(matched: Matched, wanted: Transition, window: int = WINDOW) -> Figure:
    series = goodput(matched, origin_ns=wanted.event.t_ns, window_ns=window, payload_bytes=PAYLOAD, plane=wanted.plane)
    return transition_figure(series, wanted, flows=matched.samples.flows, report=Report())


def test_goodput_is_back_in_the_first_window_after_the_gap() -> None:
    figure = failover(lossy((300, 350)), event(300))
    assert figure.value == pytest.approx(0.050)
    assert figure.resolution == pytest.approx(0.010)
    assert not figure.at_least


def test_windows_are_aligned_to_the_event() -> None:
    # Dead from 303 to 347 ms; windows start at 303: the one from 343 misses 4 of 10 ms, that from 353 is whole.
    assert failover(lossy((303, 347)), event(303)).value == pytest.approx(0.050)
    assert failover(lossy((303, 343)), event(303)).value == pytest.approx(0.040)


def test_the_events_uncertainty_is_part_of_the_resolution() -> None:
    figure = failover(lossy((300, 350)), event(300, uncertainty_ms=3))
    assert figure.resolution == pytest.approx(0.013)


def test_a_short_recovery_does_not_count() -> None:
    # Back at 350 for 4 windows only, gone again at 390, back for good at 420 ms.
    assert failover(lossy((300, 350), (390, 420)), event(300)).value == pytest.approx(0.120)
    # Back for 5 windows before the second gap: that is failover; what follows is another matter.
    assert failover(lossy((300, 350), (400, 420)), event(300)).value == pytest.approx(0.050)


def test_goodput_that_never_fell_is_a_failover_of_0_with_a_note() -> None:
    figure = failover(lossy(), event(300))
    assert figure.value == 0
    assert "never below" in figure.note


def test_goodput_is_held_against_what_the_remaining_paths_can_carry() -> None:
    # Every second packet is lost from 300 ms on: half of the capacity is gone for good.
    sent, arrivals = steady(10_000, EVERY, delay=MS // 20, lost=range(3000, 10_000, 2))
    matched = match(samples(sent, arrivals))
    assert failover(matched, event(300), FULL / 2).value == 0
    assert failover(matched, event(300), FULL).at_least
    rising = np.array([FULL] * 20 + [FULL / 2])
    assert failover(matched, event(300), rising).value == pytest.approx(0.200)


def test_90_percent_is_enough_and_89_is_not() -> None:
    sent, arrivals = steady(10_000, EVERY, delay=MS // 20, lost=range(3000, 10_000, 10))
    assert failover(match(samples(sent, arrivals)), event(300)).value == 0
    worse = match(
        samples(*steady(10_000, EVERY, delay=MS // 20, lost=[*range(3000, 10_000, 10), *range(3005, 10_000, 100)]))
    )
    assert failover(worse, event(300)).at_least


def test_goodput_not_back_by_the_end_is_a_lower_bound() -> None:
    figure = failover(lossy((300, 1000)), event(300))
    assert figure.at_least
    # 69 whole windows lie between the event and the last sending, 0.1 ms before 1 s.
    assert figure.value == pytest.approx(0.690)
    assert "not back" in figure.note
    # Back in the last 3 windows: too short to have stayed, so it took at least until they began.
    assert failover(lossy((300, 960)), event(300)).value == pytest.approx(0.660)


@pytest.mark.parametrize(
    ("at", "window", "why"),
    [(960, WINDOW, "only 3 windows"), (300, MS // 2, "holds 5.0 packets")],
)
def test_windows_that_cannot_tell_make_it_unknown(at: float, window: int, why: str) -> None:
    figure = failover(lossy((300, 350)), event(at), window=window)
    assert figure.value is None
    assert why in figure.note


def test_windows_shorter_than_the_delay_make_it_unknown() -> None:
    # 60 ms of delay: what arrives in the first 5 windows was sent before the event.
    matched = match(samples(*steady(10_000, EVERY, delay=60 * MS, lost=range(3000, 3500))))
    figure = failover(matched, event(300))
    assert figure.value is None
    assert "one-way delay" in figure.note


def test_restore_watches_the_healed_plane_only() -> None:
    # Two planes; plane 1 (odd packets) is dead from 200 ms, healed at 500 ms, used again from 530 ms on.
    sent, arrivals = steady(10_000, EVERY, delay=MS // 20, evs=2, planes=2, lost=range(2001, 5300, 2))
    wanted = Transition(event(500, what="healed"), "restore", FULL / 2, plane=1)
    figure = timed(match(samples(sent, arrivals)), wanted)
    assert (figure.name, figure.scope) == ("restore", "plane 1")
    assert figure.value == pytest.approx(0.030)


def test_goodput_of_one_flow() -> None:
    sent, arrivals = steady(1000, MS, delay=0)
    both = [*sent, *(s._replace(flow=1) for s in sent)]
    matched = match(samples(both, arrivals, flows=("a>b", "c>d")))
    rates = [
        goodput(matched, origin_ns=T0, window_ns=100 * MS, payload_bytes=125, flow=flow).bps.tolist() for flow in (0, 1)
    ]
    assert rates == [[1e6] * 9, [0] * 9]
    with pytest.raises(UsageError, match="no such flow"):
        goodput(matched, origin_ns=T0, window_ns=MS, payload_bytes=1, flow=2)


def test_detect_is_the_first_change_that_names_a_path() -> None:
    changes = [
        event(290, subject="ev 0x0001", what="suspect"),
        event(312, 2, subject="ev 0x0002", what="suspect"),
        event(305, subject="ev 0x0009", what="suspect"),
        event(320, subject="ev 0x0001", what="dead"),
    ]
    figure = detect_figure(event(300, 1), changes, {"ev 0x0001", "ev 0x0002"}, Report(), "all")
    assert figure.value == pytest.approx(0.012)
    assert figure.resolution == pytest.approx(0.003)
    missed = detect_figure(event(300), changes, {"ev 0x0007"}, Report(), "all")
    assert missed.value is None
    assert "ev 0x0007" in missed.note


@pytest.mark.parametrize("expected", [0.0, np.array([]), np.array([1.0, 0.0])])
def test_an_expectation_of_nothing_is_refused(expected: float | F64) -> None:
    with pytest.raises(UsageError, match="above 0"):
        failover(lossy(), event(300), expected)
