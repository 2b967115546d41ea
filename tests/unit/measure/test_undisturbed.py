"""What failover comes to where nothing happened, worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from testbed.experiment.transfers import quiet_spans
from testbed.faults.scope import Outage
from testbed.measure.definitions import Report
from testbed.measure.failover import Goodput
from testbed.measure.undisturbed import undisturbed_figure
from testbed.record import Event, Figure

WINDOW = 5_000_000
FULL = 100e6


def series(shares: Sequence[float]) -> Goodput:
    """Windows of so much of the full goodput each."""
    return Goodput(0, WINDOW, FULL * np.array(shares), 1e6, 0)


def undisturbed(*stretches: Sequence[float]) -> Figure:
    return undisturbed_figure([series(stretch) for stretch in stretches], FULL, Report())


def test_even_goodput_is_back_at_once_from_every_moment() -> None:
    figure = undisturbed([1.0] * 104)
    assert figure.value == 0
    assert figure.samples == 100  # The last 4 windows begin no run of 5.
    assert "0 of 104 windows" in figure.note


def test_one_bad_window_is_waited_out_from_the_five_before_and_itself() -> None:
    # In 104 windows the moments 46 to 50 wait for window 51: 5, 4, 3, 2 and 1 windows. 95 of 100 wait for none.
    figure = undisturbed([1.0] * 50 + [0.5] + [1.0] * 53)
    assert figure.value == 0
    assert "1 of 104 windows" in figure.note


def test_the_95th_percentile_of_moments() -> None:
    # Two bad windows 20 apart: 10 moments of 100 wait, two each for 5, 4, 3, 2, 1 windows: the 95th for 3 of them.
    figure = undisturbed([1.0] * 40 + [0.5] + [1.0] * 19 + [0.5] + [1.0] * 43)
    assert figure.value == 0.015
    assert figure.resolution == 0.005


def test_stretches_are_looked_at_one_by_one() -> None:
    # Too short for a run of 5, it has no moments; its windows are counted all the same.
    figure = undisturbed([1.0] * 104, [0.0] * 4)
    assert figure.value == 0
    assert figure.samples == 100
    assert "4 of 108 windows" in figure.note


def test_where_no_run_follows_what_is_left_of_the_stretch_is_a_lower_bound() -> None:
    figure = undisturbed([0.5] * 104)
    # 100 moments, the first with 100 windows to its last moment, …, the last with 1; the 95th smallest is 95.
    assert figure.value == 95 * 0.005


def test_few_moments_have_no_percentile() -> None:
    figure = undisturbed([1.0] * 103)
    assert figure.value is None
    assert "there were 99" in figure.note
    assert undisturbed().value is None


def change(t_ns: int, subject: str, what: str) -> Event:
    return Event(t_ns, "traffic", subject, what)


def test_quiet_is_when_nothing_is_down_and_nothing_given_up() -> None:
    outages = [Outage("p0-t1-0", 100, 110, 200, 210), Outage("p0-t1-1", 150, 160, 300, 310)]
    changes = [
        change(120, "flow a ev 1", "assumed bad"),
        change(170, "flow a ev 2", "assumed bad"),
        change(250, "flow a ev 1", "good"),
        change(400, "flow a ev 2", "good"),
        change(450, "flow a plane 3", "port down"),
        change(460, "flow a plane 3", "port up"),
    ]
    assert quiet_spans(changes, outages, 50, 500) == [(50, 100), (400, 450), (460, 500)]
    assert quiet_spans(changes, outages, 405, 455) == [(405, 450)]


def test_what_never_comes_back_is_never_quiet_again() -> None:
    outages = [Outage("p0-t1-0", 100, 110, 200, 210)]
    assert quiet_spans([change(120, "flow a ev 1", "assumed bad")], outages, 0, 500) == [(0, 100)]
