"""The measures again, written packet by packet from their definitions: slow, and independent of numpy.

Shares nothing with ``testbed.measure``; the tests compare the two on random traces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from hdrh.histogram import HdrHistogram

from tests.unit.measure.traces import Arrival, Sent

Key = tuple[int, int]
Stream = tuple[int, int]
StreamOf = Callable[[Sent], Stream]


class Split(NamedTuple):
    """Arrivals by what they are; ``first`` in order of arrival."""

    first: dict[Key, Arrival]
    duplicates: list[Sent]
    late: list[Sent]
    foreign: list[Arrival]


def split(sent: Iterable[Sent], arrivals: Iterable[Arrival], waiting: int) -> Split:
    packets = {(s.flow, s.seq): s for s in sent if s.status == 0}
    first: dict[Key, Arrival] = {}
    duplicates, late, foreign = [], [], []
    for arrival in arrivals:
        packet = packets.get((arrival.flow, arrival.seq))
        if packet is None:
            foreign.append(arrival)
        elif arrival.t - packet.t > waiting:
            late.append(packet)
        elif (arrival.flow, arrival.seq) in first:
            duplicates.append(packet)
        else:
            first[arrival.flow, arrival.seq] = arrival
    return Split(first, duplicates, late, foreign)


def by_stream(sent: Iterable[Sent], stream_of: StreamOf) -> dict[Stream, list[Sent]]:
    """Packets of each stream in order of sequence number."""
    out: dict[Stream, list[Sent]] = defaultdict(list)
    for packet in sorted(sent, key=lambda s: (s.flow, s.seq)):
        out[stream_of(packet)].append(packet)
    return dict(out)


def received(sent: Iterable[Sent], found: Split, stream_of: StreamOf) -> dict[Stream, list[tuple[int, int]]]:
    """(sequence number, time) of each stream's first arrivals, in order of arrival."""
    stream = {(s.flow, s.seq): stream_of(s) for s in sent}
    out: dict[Stream, list[tuple[int, int]]] = defaultdict(list)
    for key, arrival in found.first.items():
        out[stream[key]].append((arrival.seq, arrival.t))
    return out


def loss_periods(lost: Sequence[bool]) -> list[int]:
    """RFC 3357: the period number rises where a loss follows a success; its length counts its losses."""
    lengths: list[int] = []
    before = False
    for now in lost:
        if now and not before:
            lengths.append(1)
        elif now:
            lengths[-1] += 1
        before = now
    return lengths


def loss_distances(lost: Sequence[bool]) -> list[int]:
    """RFC 3357: from each loss to the one before; the first has none."""
    out, last = [], None
    for place, now in enumerate(lost):
        if now:
            if last is not None:
                out.append(place - last)
            last = place
    return out


class Late(NamedTuple):
    """One reordered packet."""

    seq: int
    extent: int
    late_time: int


def reordered(arrived: Sequence[tuple[int, int]]) -> list[Late]:
    """RFC 4737 §3.3 with NextExp, §4.2.2 and §4.3.2 with the smallest j whose s[j] > s[i]."""
    out = []
    next_expected = 0
    for i, (seq, time) in enumerate(arrived):
        if seq >= next_expected:
            next_expected = seq + 1
            continue
        j = min(k for k in range(i) if arrived[k][0] > seq)
        out.append(Late(seq, i - j, time - arrived[j][1]))
    return out


def n_reordered(arrived: Sequence[tuple[int, int]], n: int) -> int:
    """RFC 4737 §5: packets at place i with s[j] > s[i] for all j in [i - n, i)."""
    return sum(1 for i in range(n, len(arrived)) if all(arrived[j][0] > arrived[i][0] for j in range(i - n, i)))


def interval(packets: Sequence[Sent]) -> float | None:
    """Mean sending interval."""
    times = [p.t for p in packets]
    if len(times) < 2 or max(times) == min(times):
        return None
    return (max(times) - min(times)) / (len(times) - 1)


def outage(packets: Sequence[Sent], first: dict[Key, Arrival]) -> float | None:
    """Longest gap between arrivals, the ends bounded by where neighbours would have come, minus the interval."""
    step = interval(packets)
    if step is None:
        return None
    pairs = [(p, first[p.flow, p.seq]) for p in packets if (p.flow, p.seq) in first]
    start, end = min(p.t for p in packets), max(p.t for p in packets)
    if not pairs:
        return end - start + step
    fastest = min(a.t - p.t for p, a in pairs)
    times: list[float] = sorted(a.t for _, a in pairs)
    gaps = [b - a for a, b in pairwise(times)]
    gaps += [times[0] - (start + fastest - step), end + fastest + step - times[-1]]
    return max(*gaps, step) - step


def percentile(delays: Sequence[int], at: float) -> int:
    """One call of the library per sample."""
    histogram: Any = HdrHistogram(1, 1 << 50, 3)
    for delay in delays:
        histogram.record_value(delay)
    return int(histogram.get_value_at_percentile(at))


def contradictions(packets: Sequence[tuple[int, bool]], dead: Sequence[tuple[int, int, int, int]]) -> int:
    """Packets (time, lost) of one EV that its dead windows do not explain, one per edge next to it excused."""

    def surprising(time: int, lost: bool) -> bool:
        if any(hi <= time <= lo for _, hi, lo, _ in dead):
            return not lost
        return lost and not any(lo <= time <= hi for lo, _, _, hi in dead)

    surprises = {i for i, (time, lost) in enumerate(packets) if surprising(time, lost)}
    excused: set[int] = set()
    for start_lo, start_hi, end_lo, end_hi in sorted(dead):
        for before, after in (
            (
                [i for i, (t, _) in enumerate(packets) if t < start_lo],
                [i for i, (t, _) in enumerate(packets) if t >= start_hi],
            ),
            (
                [i for i, (t, _) in enumerate(packets) if t <= end_lo],
                [i for i, (t, _) in enumerate(packets) if t > end_hi],
            ),
        ):
            beside = before[-1:] + after[:1]
            free = [i for i in beside if i in surprises and i not in excused]
            excused.update(free[:1])
    return len(surprises - excused)


def windows(times: Iterable[int], origin: int, width: int, count: int) -> list[int]:
    """How many times lie in each window."""
    out = [0] * count
    for time in times:
        out[(time - origin) // width] += 1
    return out
