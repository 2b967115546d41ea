"""Percentiles: exact for small whole numbers, HdrHistogram for delays.

Delays go into the histogram without one call per sample: numpy computes each sample's HdrHistogram bucket
for all samples at once, and only the distinct buckets and their counts are kept. Layout, rank and the value
a bucket stands for are those of the ``hdrhistogram`` package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from testbed.measure.arrays import I64

SIGNIFICANT_DIGITS = 3
#: A percentile read from the histogram is at most this far above the sample it stands for.
RELATIVE_ERROR = 10.0**-SIGNIFICANT_DIGITS
#: 2**50 ns are 13 days: no delay is longer.
HIGHEST_NS = 1 << 50


def _empty() -> Any:
    return HdrHistogram(1, HIGHEST_NS, SIGNIFICANT_DIGITS)


_LAYOUT = _empty()
_HALF_BITS: int = _LAYOUT.sub_bucket_half_count_magnitude


@cache
def samples_needed(percentile: str) -> int:
    """How many samples a percentile such as ``"99.9"`` needs, so that one of them can lie above it."""
    beyond = 100 - Fraction(percentile)
    return 1 if beyond <= 0 else math.ceil(100 / beyond)


def nearest_rank(values: I64, percentile: str) -> int | None:
    """The smallest value that at least this share of ``values`` does not exceed; None for too few values."""
    if values.size < samples_needed(percentile):
        return None
    rank = max(math.ceil(Fraction(percentile) * values.size / 100), 1)
    return int(np.partition(values, rank - 1)[rank - 1])


def bucket_of(values: I64) -> I64:
    """The HdrHistogram bucket of each value, for values in ``[0, HIGHEST_NS]``; shape as given."""
    # The exponent of the value, but at least that of the linear part of the layout.
    floor = np.int64((1 << (_HALF_BITS + 1)) - 1)
    exponent = np.frexp((values | floor).astype(np.float64))[1].astype(np.int64)
    exponent -= _HALF_BITS + 1
    bucket = values >> exponent
    exponent <<= _HALF_BITS
    bucket += exponent
    return bucket


@dataclass(frozen=True)
class Histogram:
    """A HdrHistogram of delays, holding its occupied buckets only.

    Attributes:
        buckets: shape (k,), bucket numbers, ascending.
        counts: shape (k,), samples in each.
        smallest: exact, ns.
        largest: exact, ns.
    """

    buckets: I64
    counts: I64
    smallest: int
    largest: int

    @property
    def total(self) -> int:
        """How many samples it holds."""
        return int(self.counts.sum())

    def percentile(self, percentile: str) -> int | None:
        """The value in ns at a percentile such as ``"99.9"``; None with fewer samples than it needs."""
        total = self.total
        if total < samples_needed(percentile):
            return None
        rank = _rank(float(percentile), total)
        bucket = int(self.buckets[np.searchsorted(np.cumsum(self.counts), rank)])
        return int(_LAYOUT.get_highest_equivalent_value(_LAYOUT.get_value_from_index(bucket)))

    def to_hdr(self) -> Any:
        """The same as an object of the ``hdrhistogram`` package, to be encoded, stored or merged."""
        out = _empty()
        for bucket, count in zip(self.buckets.tolist(), self.counts.tolist(), strict=True):
            out.record_value(_LAYOUT.get_value_from_index(bucket), count)
        return out


def merge(histograms: list[Histogram]) -> Histogram | None:
    """The histogram of all samples together; None for none."""
    if len(histograms) < 2:
        return histograms[0] if histograms else None
    buckets, codes = np.unique(np.concatenate([h.buckets for h in histograms]), return_inverse=True)
    counts = np.zeros(buckets.size, dtype=np.int64)
    np.add.at(counts, codes, np.concatenate([h.counts for h in histograms]))
    return Histogram(buckets, counts, min(h.smallest for h in histograms), max(h.largest for h in histograms))


def histograms(values: I64, starts: I64) -> list[Histogram | None]:
    """One histogram per segment ``values[starts[i]:starts[i + 1]]``, None for an empty one.

    Args:
        values: shape (n,), ns, in ``[0, HIGHEST_NS]``.
        starts: shape (m + 1,).
    """
    keys = bucket_of(values)
    width = np.int64(_LAYOUT.counts_len)
    keys += np.repeat(np.arange(starts.size - 1, dtype=np.int64) * width, np.diff(starts))
    cells, counts = _distinct(keys)
    del keys
    segment, buckets = np.divmod(cells, width)
    cuts = np.searchsorted(segment, np.arange(starts.size))
    out: list[Histogram | None] = []
    for i in range(starts.size - 1):
        if starts[i] == starts[i + 1]:
            out.append(None)
            continue
        own, cell = values[starts[i] : starts[i + 1]], slice(cuts[i], cuts[i + 1])
        out.append(Histogram(buckets[cell], counts[cell], int(own.min()), int(own.max())))
    return out


def _rank(percentile: float, total: int) -> int:
    """Which sample, counted from 1 upwards, HdrHistogram takes for a percentile."""
    return max(int(percentile * total / 100 + 0.5), 1)


def _distinct(keys: I64) -> tuple[I64, I64]:
    """The distinct keys, ascending, and how often each occurs. Sorts ``keys`` in place."""
    keys.sort()
    first: npt.NDArray[np.bool_] = np.ones(keys.size, dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    at = np.flatnonzero(first)
    return keys[at], np.diff(at, append=keys.size)
