"""Sequence numbers that wrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure.sequence import unwrap


def test_a_32_bit_number_that_wraps_goes_on() -> None:
    wire = np.array([2**32 - 2, 2**32 - 1, 0, 1], dtype=np.uint32)
    assert unwrap(wire, 32, start=2**32 - 2).tolist() == [2**32 - 2, 2**32 - 1, 2**32, 2**32 + 1]


def test_reordering_across_the_wrap() -> None:
    assert unwrap(np.array([254, 0, 255, 1], dtype=np.uint8), 8, start=254).tolist() == [254, 256, 255, 257]


@pytest.mark.parametrize("bits", [8, 24, 32])
@given(data=st.data())
def test_any_order_with_steps_below_half_the_range(bits: int, data: st.DataObject) -> None:
    half = (1 << (bits - 1)) - 1
    start = data.draw(st.integers(0, 1 << 40))
    steps = data.draw(st.lists(st.integers(-half, half), max_size=20))
    full = [start]
    for step in steps:
        full.append(max(full[-1] + step, 0))
    wire = np.array([n % (1 << bits) for n in full], dtype=np.uint32)
    assert unwrap(wire, bits, start=start).tolist() == full


def test_no_numbers() -> None:
    assert unwrap(np.array([], dtype=np.uint32), 32).tolist() == []
