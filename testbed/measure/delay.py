"""One-way delay and its variation: RFC 7679 and RFC 5481, through HdrHistogram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from testbed.measure.arrays import I64
from testbed.measure.definitions import Report
from testbed.measure.percentiles import RELATIVE_ERROR, Histogram, histograms, merge, samples_needed
from testbed.measure.streams import Scope, Streams
from testbed.record import Figure

PERCENTILES = ("50", "90", "99", "99.9")


@dataclass(frozen=True)
class Delays:
    """Delay histograms per stream, of packets received on time.

    Attributes:
        per_stream: one per stream; None where nothing was received.
        negative: shape (streams,), packets that seem to have arrived before they were sent, by more than
            the error of the sending stamp. Smaller negative delays are counted as 0.
        send_error_ns: largest error of a sending stamp, and so of a delay.
    """

    per_stream: Sequence[Histogram | None]
    negative: I64
    send_error_ns: int

    def of(self, scope: Scope) -> Histogram | None:
        """All delays of a scope's streams together; None without any."""
        return merge([h for h in (self.per_stream[s] for s in scope.streams) if h is not None])


def delays(streams: Streams) -> Delays:
    """Build the histograms of all streams at once."""
    matched = streams.matched
    values = matched.t_arrived[streams.arrived]
    values -= matched.t_sent[streams.arrived]
    error = matched.samples.send_error_ns
    impossible = streams.per_stream(streams.arrived[values < -error])
    np.maximum(values, 0, out=values)
    return Delays(histograms(values, streams.arrived_starts), impossible, error)


def delay_figures(
    found: Delays, scope: Scope, report: Report, percentiles: Sequence[str] = PERCENTILES, *, extremes: bool = True
) -> Iterator[Figure]:
    """Percentiles of one scope's delay and, with ``extremes``, its smallest, largest and variation."""
    # A receive stamp is good to 1 ns at best.
    histogram, error = found.of(scope), max(found.send_error_ns, 1) * 1e-9
    names = [f"delay_p{p}" for p in percentiles]
    names += ["delay_min", "delay_max", "delay_variation"] if extremes else []
    negative = int(found.negative[scope.streams].sum())
    if histogram is None or negative:
        note = f"unknown: {negative} packets arrived before they were sent" if negative else "nothing was received"
        for name in names:
            yield report.figure(name, None, 0 if histogram is None else histogram.total, scope.name, note=note)
        return
    total = histogram.total
    for percentile in percentiles:
        value = histogram.percentile(percentile)
        yield _percentile_figure(f"delay_p{percentile}", percentile, value, 0, total, scope.name, report, error)
    if extremes:
        yield report.figure("delay_min", histogram.smallest * 1e-9, total, scope.name, resolution=error)
        yield report.figure("delay_max", histogram.largest * 1e-9, total, scope.name, resolution=error)
        tail, least = histogram.percentile("99.9"), histogram.smallest
        yield _percentile_figure("delay_variation", "99.9", tail, least, total, scope.name, report, error)


def _percentile_figure(
    name: str, percentile: str, value: int | None, above: int, total: int, scope: str, report: Report, error: float
) -> Figure:
    """A percentile in ns, less ``above``, with the histogram's and the stamps' error as resolution."""
    if value is None:
        note = f"needs {samples_needed(percentile)} samples, there are {total}"
        return report.figure(name, None, total, scope, note=note)
    difference = (value - above) * 1e-9
    resolution = error + value * 1e-9 * RELATIVE_ERROR
    note = f"HdrHistogram, relative error {RELATIVE_ERROR:.1%}"
    return report.figure(name, difference, total, scope, resolution=resolution, note=note)
