"""Rows without an end: a reader that keeps up sees each once, one that does not is told how many it missed."""

from __future__ import annotations

import numpy as np

from testbed.shared_rows import RowRing

ROW = np.dtype([("number", "<u8"), ("square", "<u8")])


def ring(capacity: int) -> RowRing:
    return RowRing(RowRing.make(1, ROW, capacity, "test"), {1: ROW}, "test rows")


def numbers(first: int, end: int) -> np.ndarray:
    rows = np.zeros(end - first, ROW)
    rows["number"] = np.arange(first, end)
    rows["square"] = rows["number"] ** 2
    return rows


def test_a_reader_that_keeps_up_sees_every_row_once() -> None:
    with ring(10) as rows:
        position, seen = 0, []
        for first in range(0, 63, 7):
            rows.append(numbers(first, first + 7))
            found, position, missed = rows.read_from(position)
            assert missed == 0
            assert (found["square"] == found["number"] ** 2).all()
            seen += found["number"].tolist()
        assert seen == list(range(63))
        assert len(rows.read_from(position)[0]) == 0


def test_a_reader_that_comes_too_late_is_told() -> None:
    with ring(10) as rows:
        for first in range(0, 28, 4):
            rows.append(numbers(first, first + 4))
        found, position, missed = rows.read_from(3)
        assert found["number"].tolist() == list(range(18, 28))
        assert (position, missed) == (28, 15)
