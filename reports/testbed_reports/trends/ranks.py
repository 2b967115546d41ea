"""How improbable a rank sum is: exact where few ranks are summed, by the normal distribution elsewhere.

Scores are -log10 of the two-sided probability that as many of n equally distributed values, drawn at random, have so
small or so large a rank sum (Wilcoxon 1945, Mann and Whitney 1947).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

#: Sums of up to so many ranks are counted exactly. There the normal distribution is far off in its tail.
EXACT = 16
_STEP = 0.01
_WIDEST = 40.0


def scores(ranks: F64) -> F64:
    """The score of every split of every row.

    Args:
        ranks: shape (rows, n), midranks 1…n of each row.

    Returns:
        Shape (rows, n - 1); column k is of the split before position k + 1.
    """
    n = ranks.shape[1]
    return scores_of_sums(np.cumsum(ranks, axis=1)[:, :-1], np.arange(1, n), n)


def scores_of_sums(sums: F64, first: npt.NDArray[np.int64], n: int) -> F64:
    """The scores of rank sums.

    Args:
        sums: shape (rows, splits), each the sum of the midranks before a split.
        first: shape (splits,), how many ranks each column sums, 1…n - 1.
        n: ranks there are.

    Returns:
        Shape (rows, splits).
    """
    out = np.empty(sums.shape)
    few = np.minimum(first, n - first)
    many = few > EXACT
    if many.any():
        k = first[many]
        mean, deviation = k * (n + 1) / 2, np.sqrt(k * (n - k) * (n + 1) / 12)
        # Half a rank of continuity correction. Ties make sums less scattered than this says: then scores are too low.
        away = np.maximum(np.abs(sums[:, many] - mean) - 0.5, 0.0) / deviation
        out[:, many] = _normal(away)
    if not many.all():
        exact = ~many
        swapped = np.where(first <= n - first, sums, n * (n + 1) / 2 - sums)
        out[:, exact] = _exact(swapped[:, exact], few[exact], n)
    return out


def _exact(sums: F64, few: npt.NDArray[np.int64], n: int) -> F64:
    """Scores of sums of ``few`` of the ranks 1…n, at most EXACT, column by column."""
    table = _tails(n)
    middle = few * (n + 1) / 2
    # Tails are symmetric: how far the sum is from the middle, midranks rounded towards it.
    far = np.floor(np.abs(sums - middle) + (middle % 1)).astype(np.int64)
    at = np.clip(np.floor(middle).astype(np.int64) + far, 0, table.shape[1] - 1)
    return np.where(far <= 0, 0.0, table[few - 1, at])


@lru_cache(maxsize=128)
def _tails(n: int) -> F64:
    """Row by row for 1…EXACT ranks summed: by sum, -log10 of twice the share of subsets with that or a larger one."""
    most = EXACT * n + 1
    ways = np.zeros((EXACT + 1, most))
    ways[0, 0] = 1.0
    for rank in range(1, n + 1):
        for size in range(min(rank, EXACT), 0, -1):
            ways[size, rank:] += ways[size - 1, : most - rank]
    out = []
    for size in range(1, EXACT + 1):
        tail = np.cumsum(ways[size][::-1])[::-1] / math.comb(n, size) if n >= size else np.ones(most)
        largest = sum(range(max(n - size + 1, 1), n + 1))
        tail[largest + 1 :] = tail[largest]
        out.append(np.maximum(-np.log10(np.minimum(2 * tail, 1.0)), 0.0))
    return np.stack(out)


def _normal(away: F64) -> F64:
    """-log10 of the two-sided tail of the normal distribution."""
    grid, table = _normal_table()
    found: F64 = np.interp(away, grid, table)
    return found


@lru_cache(maxsize=1)
def _normal_table() -> tuple[F64, F64]:
    grid = np.arange(0.0, _WIDEST + _STEP, _STEP)

    def tail(z: float) -> float:
        p = math.erfc(z / math.sqrt(2))
        if p > 1e-300:
            return -math.log10(p)
        # Its first asymptotic term, where the function itself is 0.
        return (z * z / 2 + math.log(z * math.sqrt(math.pi / 2))) / math.log(10)

    return grid, np.array([max(tail(float(z)), 0.0) for z in grid])


def midranks(values: F64) -> F64:
    """Ranks 1…n of each row of ``values``, equal values sharing the mean of theirs."""
    rows, n = values.shape
    # One search serves all rows: codes are whole numbers, and each row's lie above those of the row before.
    _, codes = np.unique(values, return_inverse=True)
    codes = codes.reshape(rows, n).astype(np.int64)
    width = int(codes.max()) + 1 if codes.size else 1
    flat = (codes + np.arange(rows)[:, None] * width).ravel()
    ordered = np.sort(codes, axis=1) + np.arange(rows)[:, None] * width
    line = ordered.ravel()
    start = np.repeat(np.arange(rows) * n, n)
    low, high = np.searchsorted(line, flat, "left") - start, np.searchsorted(line, flat, "right") - start
    out: F64 = ((low + high + 1) / 2).reshape(rows, n)
    return out
