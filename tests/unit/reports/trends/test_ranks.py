"""Rank sums against every subset counted one by one."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from testbed_reports.trends.ranks import midranks, scores


@pytest.mark.parametrize("n", [4, 7, 10])
def test_scores_are_exact_where_few_are_summed(n: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        ranks = rng.permutation(np.arange(1.0, n + 1))
        found = scores(ranks[None, :])[0]
        for k in range(1, n):
            middle = k * (n + 1) / 2
            far = abs(ranks[:k].sum() - middle)
            sums = [sum(subset) for subset in combinations(range(1, n + 1), k)]
            # Two-sided: as far from the middle or further, on either side.
            share = min(sum(abs(one - middle) >= far for one in sums) / len(sums), 1.0)
            assert found[k - 1] == pytest.approx(-math.log10(share), abs=1e-9), (ranks, k)


def test_both_ways_of_counting_agree_where_they_meet() -> None:
    n = 120
    ranks = np.arange(1.0, n + 1)
    rng = np.random.default_rng(1)
    for _ in range(200):
        found = scores(rng.permutation(ranks)[None, :])[0]
        # 16 are counted exactly, 17 by the normal distribution: neighbours can differ by one value's worth.
        assert abs(found[15] - found[16]) < 0.9


@given(st.lists(st.lists(st.integers(0, 5), min_size=6, max_size=6), min_size=1, max_size=5))
def test_midranks_share_the_mean_of_equal_values(rows: list[list[int]]) -> None:
    found = midranks(np.array(rows, dtype=float))
    for row, ranks in zip(rows, found, strict=True):
        for value, rank in zip(row, ranks, strict=True):
            below, same = sum(one < value for one in row), row.count(value)
            assert rank == below + (same + 1) / 2


def test_ties_never_make_a_score_larger() -> None:
    whole = scores(midranks(np.arange(20.0)[None, :]))[0]
    tied = scores(midranks(np.repeat([0.0, 1.0], 10)[None, :]))[0]
    assert tied[9] == pytest.approx(whole[9])
    assert all(one <= other + 1e-9 for one, other in zip(tied, whole, strict=True))
    # One odd value at the end is no change, however odd.
    assert scores(midranks(np.array([[0.0] * 19 + [9.0]])))[0][-1] < 1.4
