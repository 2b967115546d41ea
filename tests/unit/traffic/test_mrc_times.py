"""Times of an endless stream."""

from __future__ import annotations

from testbed.traffic.mrc.programs.times import TIMES_KEPT, Newest


def test_the_newest_are_kept_in_their_order() -> None:
    times = Newest()
    assert times.to_list() == []
    for value in range(3):
        times.append(value)
    assert times.to_list() == [0, 1, 2]
    for value in range(3, TIMES_KEPT + 5):
        times.append(value)
    assert times.to_list() == list(range(5, TIMES_KEPT + 5))
