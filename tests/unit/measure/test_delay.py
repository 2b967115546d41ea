"""Percentiles through HdrHistogram, delay and its variation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.measure.definitions import Report
from testbed.measure.delay import delay_figures, delays
from testbed.measure.match import match
from testbed.measure.percentiles import HIGHEST_NS, bucket_of, histograms, merge, nearest_rank, samples_needed
from testbed.measure.streams import Level, streams
from testbed.record import Figure
from tests.unit.measure.traces import MS, Arrival, Sent, samples, steady

values = st.lists(st.integers(0, 1 << 46), min_size=1, max_size=60)


def empty_histogram() -> Any:
    return HdrHistogram(1, HIGHEST_NS, 3)


def figures(waits: list[int], send_error: int = 0) -> dict[str, Figure]:
    """The delay figures of packets that took ``waits`` ns."""
    sent = [Sent(n, n * MS) for n in range(len(waits))]
    arrivals = sorted((Arrival(s.seq, s.t + w) for s, w in zip(sent, waits, strict=True)), key=lambda a: a.t)
    found = streams(match(samples(sent, arrivals, send_error=send_error)), Level.FLOW)
    return {f.name: f for f in delay_figures(delays(found), found.everything(), Report())}


@given(values)
@settings(max_examples=30, deadline=None)
def test_buckets_and_percentiles_are_the_librarys(given: list[int]) -> None:
    library = empty_histogram()
    for value in given:
        library.record_value(value)
    [own] = histograms(np.array(given), np.array([0, len(given)]))
    assert own
    assert {b: c for b, c in enumerate(library.counts) if c} == dict(
        zip(own.buckets.tolist(), own.counts.tolist(), strict=True)
    )
    for percentile in ("50", "90", "99", "99.9", "100"):
        expected = library.get_value_at_percentile(float(percentile))
        assert own.percentile(percentile) == (expected if len(given) >= samples_needed(percentile) else None)
    assert own.to_hdr().get_total_count() == len(given)
    assert own.to_hdr().get_value_at_percentile(75) == library.get_value_at_percentile(75)


@given(values, values, values)
@settings(max_examples=50, deadline=None)
def test_merging_is_one_histogram_of_everything(a: list[int], b: list[int], c: list[int]) -> None:
    starts = np.cumsum([0, len(a), 0, len(b), len(c)])
    parts = histograms(np.array([*a, *b, *c]), starts)
    assert parts[1] is None
    [whole] = histograms(np.array([*a, *b, *c]), starts[[0, -1]])
    merged = merge([p for p in parts if p])
    assert merged
    assert whole
    assert merged.buckets.tolist() == whole.buckets.tolist()
    assert merged.counts.tolist() == whole.counts.tolist()
    assert (merged.smallest, merged.largest) == (whole.smallest, whole.largest)


def test_bucket_edges_at_every_power_of_two() -> None:
    edges = np.array([v + d for v in (1 << e for e in range(1, 50)) for d in (-1, 0, 1)])
    library = empty_histogram()
    assert bucket_of(edges).tolist() == [library._counts_index_for(int(v)) for v in edges]


@pytest.mark.parametrize(("percentile", "needed"), [("50", 2), ("90", 10), ("99", 100), ("99.9", 1000), ("100", 1)])
def test_samples_a_percentile_needs(percentile: str, needed: int) -> None:
    assert samples_needed(percentile) == needed
    assert nearest_rank(np.arange(needed - 1), percentile) is None
    assert nearest_rank(np.arange(needed), percentile) is not None


def test_nearest_rank_of_small_numbers() -> None:
    assert nearest_rank(np.array([9, 1, 5, 3]), "50") == 3
    assert nearest_rank(np.array([9, 1, 5, 3]), "100") == 9


def test_delay_of_a_thousand_packets() -> None:
    # 1, 2, … 1000 µs: the median is 500 µs, the 99.9th percentile the 999th value.
    found = figures([n * 1000 for n in range(1, 1001)], send_error=700)
    assert found["delay_p50"].value == pytest.approx(500e-6, rel=1e-3)
    assert found["delay_p90"].value == pytest.approx(900e-6, rel=1e-3)
    assert found["delay_p99"].value == pytest.approx(990e-6, rel=1e-3)
    assert found["delay_p99.9"].value == pytest.approx(999e-6, rel=1e-3)
    assert found["delay_max"].value == pytest.approx(1000e-6)
    assert found["delay_min"].value == pytest.approx(1e-6)
    assert found["delay_variation"].value == pytest.approx(998e-6, rel=1e-3)
    assert {f.samples for f in found.values()} == {1000}
    assert found["delay_max"].resolution == pytest.approx(700e-9)
    assert found["delay_p50"].resolution == pytest.approx(700e-9 + 500e-9, rel=1e-2)


def test_200_samples_have_no_999th_per_mille() -> None:
    found = figures([1000] * 200)
    assert found["delay_p99"].value is not None
    for name in ("delay_p99.9", "delay_variation"):
        assert found[name].value is None
        assert found[name].note == "needs 1000 samples, there are 200"
        assert found[name].samples == 200


def test_variation_is_never_below_0() -> None:
    # All delays equal: the bucket's highest value lies above the smallest delay, by less than its error.
    variation = figures([1_234_567] * 1000)["delay_variation"]
    assert variation.value is not None
    assert variation.resolution is not None
    assert 0 <= variation.value <= variation.resolution


def test_arrival_before_sending_makes_delay_unknown() -> None:
    found = figures([5000] * 10 + [-900], send_error=500)
    assert {f.value for f in found.values()} == {None}
    assert "1 packets arrived before they were sent" in found["delay_p50"].note


def test_arrival_before_sending_within_the_stamps_error_is_0() -> None:
    assert figures([-400] * 10, send_error=500)["delay_max"].value == 0


def test_nothing_received_has_no_delay() -> None:
    found = streams(match(samples(steady(5, MS)[0], [])), Level.FLOW)
    assert {f.value for f in delay_figures(delays(found), found.everything(), Report())} == {None}
