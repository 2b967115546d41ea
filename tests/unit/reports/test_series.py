"""Thinning a timeline keeps its totals, and the gaps that an average would hide."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from testbed.measure.series import TimelineRecord
from testbed.measure.timeline import Timeline
from tests.unit.reports.runs import MS, T0, Run, timeline


def test_totals_are_exact_however_thin(run: Run) -> None:
    counts = timeline(run, window_ns=MS)
    assert counts.sent.sum() == 2 * run.samples.sent.size
    for most in (10_000, 2000, 700, 37, 1):
        record = TimelineRecord.of(counts, most)
        assert record.windows <= most
        for name in ("sent", "delivered", "lost", "reordered"):
            kept = [sum(getattr(plane, name)) for plane in record.planes]
            assert kept == getattr(counts, name)[1:].sum(axis=1).tolist()
        assert record.end_ns == T0 + counts.sent.shape[1] * MS


def test_a_gap_of_one_window_survives() -> None:
    delivered = np.full((2, 1000), 50, dtype=np.int64)
    delivered[:, 617] = 0
    none = np.zeros_like(delivered)
    counts = Timeline(T0, MS, (4,), 1000, delivered, delivered, none, none)
    record = TimelineRecord.of(counts, 100).thinned(10)
    plane = record.planes[0]
    assert (record.merged, record.windows) == (100, 10)
    assert plane.delivered_min == (50, 50, 50, 50, 50, 50, 0, 50, 50, 50)
    assert plane.delivered_max == (50,) * 10
    assert plane.delivered[6] == 4950


def test_thinning_twice_is_thinning_once() -> None:
    rng = np.random.default_rng(3)
    columns = [rng.integers(0, 99, (3, 1013)) for _ in range(4)]
    counts = Timeline(T0, MS, (0, 1), 1000, *columns)
    twice, once = TimelineRecord.of(counts, 507).thinned(102), TimelineRecord.of(counts, 102)
    assert twice == once
    assert once.last_merged == (1013 - 1) % 10 + 1


def test_columns_of_different_lengths_are_refused(run: Run) -> None:
    record = TimelineRecord.of(timeline(run))
    short = record.planes[0].model_dump() | {"lost": (1, 2)}
    with pytest.raises(ValidationError, match="different lengths"):
        TimelineRecord.model_validate(record.model_dump() | {"planes": (short,)})


def test_a_run_without_packets_has_no_windows() -> None:
    none = np.zeros((3, 0), dtype=np.int64)
    record = TimelineRecord.of(Timeline(0, MS, (0, 1), 1000, none, none, none, none))
    assert (record.windows, record.end_ns) == (0, 0)
    assert record.thinned(10) == record
