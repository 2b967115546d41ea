"""What failover comes to at moments at which nothing happened: the machine's own part in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from testbed.measure.definitions import Report
from testbed.measure.failover import BACK_AT, STAYS_FOR, Goodput, stays
from testbed.record import Figure

#: Of the moments looked at, this share is no worse than the figure.
PERCENTILE = 0.95
#: Fewer moments than this have no such percentile.
FEWEST_MOMENTS = 100


def undisturbed_figure(stretches: Sequence[Goodput], expected_bps: float, report: Report) -> Figure:
    """The 95th percentile of failover as if each window of quiet stretches were an event.

    A machine that takes its processors away for some milliseconds makes goodput fall without any fault. A failover
    that is no longer than this figure need not be the fabric's.

    Args:
        stretches: goodput while no fault was in force and every path in use, all with the same window.
        expected_bps: what all paths can carry of the load, payload bit/s, above 0.
        report: makes the figure; its value is unknown with fewer than :data:`FEWEST_MOMENTS` moments.
    """
    waits, below, windows = list[int](), 0, 0
    for series in stretches:
        enough = series.bps >= BACK_AT * expected_bps * (1 - 1e-9)
        windows += enough.size
        below += int((~enough).sum())
        if enough.size >= STAYS_FOR:
            waits += _waits(stays(enough))
    if len(waits) < FEWEST_MOMENTS:
        note = f"{FEWEST_MOMENTS} moments without a fault are needed, there were {len(waits)}"
        return report.figure("failover_undisturbed", None, len(waits), "all", note=note)
    window_s = stretches[0].window_ns * 1e-9
    worst = sorted(waits)[math.ceil(PERCENTILE * len(waits)) - 1]
    note = f"{below} of {windows} windows of {window_s:.6f} s below {BACK_AT:.0%}"
    return report.figure("failover_undisturbed", worst * window_s, len(waits), "all", resolution=window_s, note=note)


def _waits(begins: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[int]:
    """For each window how many follow until one begins a run; at the end, where none does, as many as there are."""
    following = np.where(begins, np.arange(begins.size), begins.size)
    following = np.minimum.accumulate(following[::-1])[::-1]
    return [int(wait) for wait in following - np.arange(begins.size)]
