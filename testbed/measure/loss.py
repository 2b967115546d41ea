"""Loss, its pattern, and duplication: RFC 7680, RFC 3357, RFC 5560."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from testbed.measure.arrays import I64, Ragged
from testbed.measure.definitions import Report
from testbed.measure.percentiles import nearest_rank, samples_needed
from testbed.measure.streams import Scope, Streams
from testbed.record import Figure


@dataclass(frozen=True)
class Counts:
    """Packets per stream; every array has shape (streams,).

    Attributes:
        sent: offered, refused ones included.
        lost: without an arrival within the waiting time, refused ones included.
        refused: refused by the sender's own kernel.
        late: arrivals after the waiting time.
        duplicates: second and later arrivals within the waiting time.
        replicated: packets that have duplicates.
    """

    sent: I64
    lost: I64
    refused: I64
    late: I64
    duplicates: I64
    replicated: I64


@dataclass(frozen=True)
class Pattern:
    """RFC 3357's loss pattern per stream.

    Attributes:
        periods: length of each run of consecutive losses, in packets (RFC 3357 §6.3).
        distances: from each loss but the first to the one before it, in packets (RFC 3357 §5.4.1).
    """

    periods: Ragged
    distances: Ragged


def counts(streams: Streams) -> Counts:
    """Count per stream what was sent, lost, refused, late and duplicated."""
    matched = streams.matched
    return Counts(
        sent=np.diff(streams.starts),
        lost=streams.per_stream(np.flatnonzero(matched.lost)),
        refused=streams.per_stream(np.flatnonzero(matched.refused)),
        late=streams.per_stream(matched.late),
        duplicates=streams.per_stream(matched.duplicate),
        replicated=streams.per_stream(np.unique(matched.duplicate)),
    )


def pattern(streams: Streams) -> Pattern:
    """Loss periods and loss distances per stream, counted in the stream's own packets."""
    at = np.flatnonzero(streams.in_order(streams.matched.lost)).astype(np.int64)
    stream = np.searchsorted(streams.starts, at, side="right") - 1
    same = stream[1:] == stream[:-1]
    distance = at[1:] - at[:-1]
    opens = np.ones(at.size, dtype=np.bool_)
    opens[1:] = ~same | (distance > 1)
    first = np.flatnonzero(opens)
    lengths = np.diff(first, append=at.size).astype(np.int64)
    return Pattern(
        periods=Ragged.group(lengths, stream[first], streams.count),
        distances=Ragged.group(distance[same], stream[1:][same], streams.count),
    )


def loss_figures(found: Counts, scope: Scope, report: Report, note: str) -> Iterator[Figure]:
    """Sent, lost, their ratio, refused and late packets of one scope."""
    own = scope.streams
    sent, lost = int(found.sent[own].sum()), int(found.lost[own].sum())
    yield report.figure("sent", sent, sent, scope.name)
    yield report.figure("lost", lost, sent, scope.name, note=note)
    yield _ratio(report, "loss_ratio", lost, sent, scope.name, note)
    yield report.figure("refused", int(found.refused[own].sum()), sent, scope.name)
    yield report.figure("late", int(found.late[own].sum()), sent, scope.name, note=note)


def duplication_figures(found: Counts, scope: Scope, report: Report, note: str) -> Iterator[Figure]:
    """Duplicates, and what share of the packets received they are and concern, of one scope."""
    own = scope.streams
    received = int((found.sent[own] - found.lost[own]).sum())
    duplicates = int(found.duplicates[own].sum())
    yield report.figure("duplicates", duplicates, received, scope.name, note=note)
    yield _ratio(report, "duplication_fraction", duplicates, received, scope.name, note)
    yield _ratio(report, "replicated_ratio", int(found.replicated[own].sum()), received, scope.name, note)


def pattern_figures(found: Pattern, scope: Scope, report: Report) -> Iterator[Figure]:
    """Number and length of loss periods and the distance between losses of one scope."""
    periods, distances = found.periods.of(scope.streams), found.distances.of(scope.streams)
    yield report.figure("loss_periods", periods.size, int(periods.sum()), scope.name)
    yield order_statistic(report, "loss_period_p50", periods, "50", scope.name)
    yield order_statistic(report, "loss_period_max", periods, "100", scope.name)
    smallest = int(distances.min()) if distances.size else None
    note = "" if distances.size else "fewer than two losses in each stream"
    yield report.figure("loss_distance_min", smallest, distances.size, scope.name, note=note)
    yield order_statistic(report, "loss_distance_p50", distances, "50", scope.name)


def order_statistic(
    report: Report,
    name: str,
    values: I64,
    percentile: str,
    scope: str,
    *,
    unit: float = 1.0,
    error: float | None = None,
) -> Figure:
    """A percentile (``"100"``: the largest) of whole numbers times ``unit``; unknown with too few of them."""
    found = nearest_rank(values, percentile)
    if found is None:
        note = f"needs {samples_needed(percentile)} samples, there are {values.size}"
        return report.figure(name, None, values.size, scope, note=note)
    return report.figure(name, found * unit, values.size, scope, resolution=error)


def _ratio(report: Report, name: str, part: int, whole: int, scope: str, note: str) -> Figure:
    """A share of packets, whose resolution is one packet; unknown of nothing."""
    if not whole:
        return report.figure(name, None, 0, scope, note="no packets to take the share of")
    return report.figure(name, part / whole, whole, scope, resolution=1 / whole, note=note)
