"""Small array helpers that several measures share: segments of a grouped array, and compact codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]

#: Above this many possible keys a lookup table costs more memory than sorting costs time.
_TABLE_LIMIT = 1 << 24


def grouping(keys: npt.NDArray[np.integer]) -> I64 | None:
    """The stable permutation that groups ``keys`` in ascending order; None where they already are.

    Args:
        keys: shape (n,), non-negative.
    """
    if keys.size < 2 or bool(np.all(keys[1:] >= keys[:-1])):
        return None
    # numpy's stable sort is a radix sort on 16 bits only: five times faster than on wider keys.
    if int(keys.max()) < 1 << 16:
        keys = keys.astype(np.uint16)
    return np.argsort(keys, kind="stable")


def compact(keys: I64, bound: int) -> tuple[I64, npt.NDArray[np.int32]]:
    """Number the distinct keys in ascending order.

    Args:
        keys: shape (n,), each in ``[0, bound)``.
        bound: the number of keys that could occur.

    Returns:
        The distinct keys, shape (m,), and for each input key its number, shape (n,).
    """
    if bound > _TABLE_LIMIT:
        distinct, codes = np.unique(keys, return_inverse=True)
        return distinct, codes.astype(np.int32)
    present = np.zeros(bound, dtype=np.bool_)
    present[keys] = True
    table = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(present).astype(np.int64), table[keys]


def starts_of(codes: npt.NDArray[np.integer], groups: int) -> I64:
    """Where each of ``groups`` segments starts in an array grouped by ``codes``; shape (groups + 1,)."""
    starts = np.zeros(groups + 1, dtype=np.int64)
    np.cumsum(np.bincount(codes, minlength=groups), out=starts[1:])
    return starts


def segment_max(values: I64, starts: I64, empty: int) -> I64:
    """The largest value of each segment ``values[starts[i]:starts[i + 1]]``; ``empty`` for one without values."""
    return _reduce(np.maximum, values, starts, empty)


def segment_min(values: I64, starts: I64, empty: int) -> I64:
    """The smallest value of each segment; ``empty`` for one without values."""
    return _reduce(np.minimum, values, starts, empty)


def longest_step(values: I64, starts: I64) -> I64:
    """The largest difference between neighbours within each segment; 0 for fewer than two values.

    Args:
        values: shape (n,), ascending within each segment.
        starts: shape (m + 1,).
    """
    if values.size < 2:
        return np.zeros(starts.size - 1, dtype=np.int64)
    # The step into a segment from the one before it is no step: zero it, and keep one step per value.
    steps = np.empty(values.size, dtype=np.int64)
    np.subtract(values[1:], values[:-1], out=steps[1:])
    firsts = starts[:-1]
    steps[firsts[firsts < values.size]] = 0
    return segment_max(steps, starts, 0)


def sort_segments(values: I64, starts: I64) -> I64:
    """``values`` ascending within each segment; the array itself where it already is."""
    if values.size < 2:
        return values
    falls = np.flatnonzero(values[1:] < values[:-1]) + 1
    falls = falls[~np.isin(falls, starts)]
    if not falls.size:
        return values
    out = values.copy()
    for segment in np.unique(np.searchsorted(starts, falls, side="right") - 1):
        out[starts[segment] : starts[segment + 1]].sort()
    return out


def _reduce(operation: np.ufunc, values: I64, starts: I64, empty: int) -> I64:
    out = np.full(starts.size - 1, empty, dtype=np.int64)
    filled = np.flatnonzero(starts[1:] > starts[:-1])
    if filled.size:
        out[filled] = operation.reduceat(values, starts[:-1][filled])
    return out


@dataclass(frozen=True)
class Ragged:
    """Values of many streams in one array: those of stream i are ``values[starts[i]:starts[i + 1]]``."""

    values: I64
    starts: I64

    @classmethod
    def group(cls, values: I64, codes: npt.NDArray[np.integer], groups: int) -> Ragged:
        """Group ``values`` by the stream each belongs to, keeping their order within it."""
        order = grouping(codes)
        return cls(values if order is None else values[order], starts_of(codes, groups))

    def of(self, streams: I64) -> I64:
        """All values of the given streams."""
        if streams.size == self.starts.size - 1:
            return self.values
        return np.concatenate([self.values[self.starts[s] : self.starts[s + 1]] for s in streams])
