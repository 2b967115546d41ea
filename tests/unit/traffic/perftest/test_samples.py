"""From stamps to figures, in numbers that can be followed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.traffic.perftest import samples


def stamps(*microseconds: float) -> samples.Stamps:
    return (np.array(microseconds) * 1000).astype(np.int64)


def test_the_average_is_from_the_first_post_to_the_last_completion() -> None:
    report = samples.bandwidth(1000, stamps(0, 0, 10, 20), stamps(10, 20, 30, 40), peak=False)
    assert (report.iterations, report.average, report.rate, report.peak) == (4, 1e8, 1e5, 0.0)


def test_the_peak_is_the_best_run_of_messages() -> None:
    # The last two messages take 2 µs together, 1 µs each; everything else is slower.
    report = samples.bandwidth(1000, stamps(0, 100, 200, 200), stamps(50, 150, 201.5, 202), peak=True)
    assert report.peak == pytest.approx(1e9)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=12))
def test_the_peak_is_that_of_trying_every_run(steps: list[tuple[int, int]]) -> None:
    posted = np.cumsum([post for post, _ in steps]).astype(np.int64)
    completed = np.maximum.accumulate(posted + [time for _, time in steps])
    tried = min(
        (completed[last] - posted[first]) / (last - first + 1)
        for first in range(len(steps))
        for last in range(first, len(steps))
    )
    assert samples.min_per_message(posted, completed) == pytest.approx(float(tried))


def test_latency_is_half_a_round_trip_and_the_longest_is_left_out() -> None:
    # Round trips of 2, 4, 6, 8 and 1000 µs: samples of 1, 2, 3, 4 and 500.
    figures, each = samples.latency(2, stamps(0, 2, 6, 12, 20, 1020))
    assert each.tolist() == [1, 2, 3, 4, 500]
    assert (figures.iterations, figures.least, figures.most, figures.typical) == (6, 1, 4, 2)
    assert (figures.average, figures.p99, figures.p999) == (2, 4, 4)
    assert figures.deviation == pytest.approx((2 / 3) ** 0.5)


def test_percentiles_of_a_thousand() -> None:
    figures, _ = samples.latency(2, np.cumsum(np.arange(1000) * 2000).astype(np.int64))
    # 999 samples 1, 2, … 999 µs, of which 997 count.
    assert (figures.typical, figures.p99, figures.p999, figures.most) == (499, 989, 998, 998)


@given(st.dictionaries(st.sampled_from(["size", "iterations", "peak", "average", "rate", "x"]), st.none() | st.floats()
       | st.integers() | st.text() | st.booleans() | st.lists(st.integers()), max_size=6))  # fmt: skip
def test_a_report_from_the_other_end_is_right_or_refused(fields: dict[str, object]) -> None:
    try:
        report = samples.of_fields(fields)
    except ValueError:
        return
    assert 0 <= report.average < 1e18


def test_a_report_that_is_right_is_taken() -> None:
    fields = {"size": 2, "iterations": 5, "peak": 3, "average": 2.5, "rate": 1.0}
    assert samples.of_fields(fields).average == 2.5
