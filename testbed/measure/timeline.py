"""What happened when: per plane and over all, in windows, for plots and the live view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError
from testbed.measure.arrays import I64
from testbed.measure.match import Matched
from testbed.measure.planes import planes_seen
from testbed.measure.reorder import Reordering

#: More windows than this make neither a plot nor sense, and are most often a wrong unit.
MOST_WINDOWS = 1_000_000


@dataclass(frozen=True)
class Timeline:
    """Counts per plane and window; row 0 is all planes, row 1 + i is ``planes[i]``.

    A packet belongs to the plane it was sent on. It is sent and lost in the window it was offered in, and
    delivered and reordered in the window it arrived in.

    Attributes:
        origin_ns: start of the first window, CLOCK_REALTIME.
        window_ns: length of a window.
        planes: plane numbers.
        payload_bytes: payload of one packet.
        sent, delivered, lost, reordered: packets, shape (planes + 1, windows).
    """

    origin_ns: int
    window_ns: int
    planes: tuple[int, ...]
    payload_bytes: int
    sent: I64
    delivered: I64
    lost: I64
    reordered: I64

    @property
    def starts_ns(self) -> I64:
        """Start of each window, shape (windows,)."""
        return self.origin_ns + np.arange(self.sent.shape[1], dtype=np.int64) * self.window_ns

    @property
    def goodput_bps(self) -> npt.NDArray[np.float64]:
        """Payload received for the first time, in bit/s, shape (planes + 1, windows)."""
        return self.delivered.astype(np.float64) * (self.payload_bytes * 8e9 / self.window_ns)


def timeline(
    matched: Matched,
    found: Reordering,
    *,
    window_ns: int,
    payload_bytes: int,
    origin_ns: int | None = None,
    planes: tuple[int, ...] | None = None,
) -> Timeline:
    """Count in windows.

    Args:
        matched: the packets.
        found: reordering of their flows.
        window_ns: length of a window.
        payload_bytes: payload of one packet.
        origin_ns: windows are aligned to this, for instance an event; by default to the first packet.
        planes: rows to make, so that a plane that carried nothing has one; by default those seen.

    Raises:
        UsageError: a window that is not positive, or so short that there are over a million.
    """
    if window_ns <= 0:
        raise UsageError("a sampling window must be longer than nothing", found=f"{window_ns} ns")
    planes = planes_seen(matched) if planes is None else planes
    first, end = _extent(matched)
    origin = first if origin_ns is None else first - (first - origin_ns) % window_ns
    windows = max((end - origin) // window_ns + 1, 0)
    if windows > MOST_WINDOWS:
        raise UsageError(
            "the sampling window is too short for this run",
            found=f"{windows} windows of {window_ns} ns",
            expected=f"at most {MOST_WINDOWS} windows",
            remedy=f"use a window of at least {-(-(end - origin + 1) // MOST_WINDOWS)} ns",
        )
    row_of = np.full(256, -1, dtype=np.int64)
    row_of[list(planes)] = np.arange(len(planes))

    def count(packets: I64 | slice, times: I64) -> I64:
        rows = row_of[matched.plane[packets]]
        if bool((rows < 0).any()):
            raise UsageError(
                "packets were sent on a plane that the timeline has no row for",
                found=f"planes {planes_seen(matched)}",
                expected=f"planes {planes}",
            )
        cells = (times[packets] - origin) // window_ns
        cells += rows * windows
        per_plane = np.bincount(cells, minlength=len(planes) * windows).reshape(len(planes), windows)
        return np.vstack([per_plane.sum(axis=0), per_plane]).astype(np.int64)

    return Timeline(
        origin_ns=origin,
        window_ns=window_ns,
        planes=planes,
        payload_bytes=payload_bytes,
        sent=count(slice(None), matched.t_sent),
        delivered=count(matched.received, matched.t_arrived),
        lost=count(np.flatnonzero(matched.lost), matched.t_sent),
        reordered=count(found.packets, matched.t_arrived),
    )


def _extent(matched: Matched) -> tuple[int, int]:
    """The first and last stamp of the samples; an extent of nothing without samples."""
    if not matched.t_sent.size:
        return 0, -1
    # Lost packets have t_arrived 0, which never is the largest.
    first, last = int(matched.t_sent.min()), int(max(matched.t_sent.max(), matched.t_arrived.max()))
    if matched.received.size:
        first = min(first, int(matched.t_arrived[matched.received].min()))
    return first, last
