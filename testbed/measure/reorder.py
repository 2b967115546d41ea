"""Reordering: RFC 4737 ratio, extent, late time and n-reordering, over first arrivals on time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from testbed.measure.arrays import I64, Ragged
from testbed.measure.definitions import N_REORDERING, Report
from testbed.measure.loss import order_statistic
from testbed.measure.streams import Scope, Streams
from testbed.record import Figure


@dataclass(frozen=True)
class Reordering:
    """What was out of order, per stream.

    Attributes:
        packets: shape (k,), each reordered packet, grouped by stream and in order of arrival.
        received: shape (streams,), packets received.
        extents: per stream, RFC 4737 §4.2's extent of each reordered packet, in arrivals.
        late_ns: per stream, RFC 4737 §4.3's late time of each reordered packet.
        n_reordered: shape (16, streams), packets that are n-reordered (RFC 4737 §5), n = 1…16.
    """

    packets: I64
    received: I64
    extents: Ragged
    late_ns: Ragged
    n_reordered: I64


def reordering(streams: Streams) -> Reordering:
    """Find the reordered packets of each stream, in O(n + k log n)."""
    # Streams lie one after the other with ascending positions, so that one running maximum serves all:
    # nothing received in an earlier stream is larger than anything in a later one.
    position = streams.positions()
    highest = np.maximum.accumulate(position)
    at = np.flatnonzero(position < highest)
    earliest = np.searchsorted(highest, position[at], side="right")
    stream = np.searchsorted(streams.arrived_starts, at, side="right") - 1
    arrived_at = streams.matched.t_arrived[streams.arrived]
    starts = np.searchsorted(stream, np.arange(streams.count + 1)).astype(np.int64)
    return Reordering(
        packets=streams.arrived[at],
        received=np.diff(streams.arrived_starts),
        extents=Ragged((at - earliest).astype(np.int64), starts),
        late_ns=Ragged(arrived_at[at] - arrived_at[earliest], starts),
        n_reordered=_n_reordered(position, at, stream, streams.count),
    )


def reordering_figures(found: Reordering, scope: Scope, report: Report, note: str) -> Iterator[Figure]:
    """Ratio, extent, late time and n-reordering of one scope."""
    own = scope.streams
    received = int(found.received[own].sum())
    extents, late = found.extents.of(own), found.late_ns.of(own)
    nothing = "" if received else "nothing was received"
    yield report.figure("reordered", extents.size, received, scope.name, note=note)
    for name, part in (("reordered_ratio", extents.size), *_n_counts(found, own)):
        value = part / received if received else None
        yield report.figure(name, value, received, scope.name, resolution=1 / max(received, 1), note=nothing)
    for suffix, percentile in (("p50", "50"), ("p99", "99"), ("max", "100")):
        yield order_statistic(report, f"reordering_extent_{suffix}", extents, percentile, scope.name)
        yield order_statistic(
            report, f"reordering_late_time_{suffix}", late, percentile, scope.name, unit=1e-9, error=1e-9
        )


def _n_counts(found: Reordering, own: I64) -> Iterator[tuple[str, int]]:
    for row, n in enumerate(N_REORDERING):
        yield f"n_reordering_{n}", int(found.n_reordered[row, own].sum())


def _n_reordered(position: I64, at: I64, stream: I64, count: int) -> I64:
    """How many packets of each stream are n-reordered: all of the n arrivals before them are larger."""
    out = np.zeros((len(N_REORDERING), count), dtype=np.int64)
    for row, n in enumerate(N_REORDERING):
        # Who is not (n-1)-reordered cannot be n-reordered. An arrival before the stream's first belongs to
        # an earlier stream, and is never larger.
        still = at >= n
        still[still] = position[at[still] - n] > position[at[still]]
        at, stream = at[still], stream[still]
        out[row] = np.bincount(stream, minlength=count)
    return out
