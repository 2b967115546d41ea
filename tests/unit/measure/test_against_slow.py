"""numpy against the packet-by-packet implementation, on random traces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.measure import loss, outage, reorder
from testbed.measure.dead import DeadWindow, lost_in_windows
from testbed.measure.delay import delays
from testbed.measure.match import Matched, match
from testbed.measure.streams import Level, Streams, streams
from testbed.measure.timeline import timeline
from tests.unit.measure import slow
from tests.unit.measure.traces import T0, Arrival, Sent, samples

WAITING = 400
Stream = tuple[int, int]
Trace = tuple[list[Sent], list[Arrival]]
LEVELS: dict[Level, Callable[[Sent], Stream]] = {
    Level.FLOW: lambda s: (s.flow, 0),
    Level.EV: lambda s: (s.flow, s.ev),
    Level.PLANE: lambda s: (s.flow, s.plane),
}


#: Small ones, and the largest there is.
EVS = (0, 1, 2, 3, 2**32 - 1)
seqs = st.one_of(st.integers(0, 60), st.integers(0, 2**64 - 1))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Three flows over five EVs on three planes: losses, refusals, duplicates, late and foreign arrivals."""
    # Beyond 32 bits, beyond 63 bits, and with numbers left out: nothing may depend on starting at 0.
    next_seq = [draw(st.sampled_from([0, 7, 2**32 - 5, 2**63 - 3])) for _ in range(3)]
    gaps = draw(st.booleans())
    sent, arrivals, now = [], [], 0
    for _ in range(draw(st.integers(0, 40))):
        flow, ev = draw(st.integers(0, 2)), draw(st.sampled_from(EVS))
        now += draw(st.integers(0, 50))
        refused = draw(st.integers(0, 9)) == 0
        packet = Sent(next_seq[flow], now, flow, ev, ev % 3, 105 if refused else 0)
        next_seq[flow] += draw(st.integers(1, 3)) if gaps else 1
        sent.append(packet)
        copies = draw(st.sampled_from([0, 1, 1, 1, 1, 2, 3]))
        for _ in range(copies):
            wait = draw(st.one_of(st.integers(0, 120), st.integers(WAITING - 1, WAITING + 60)))
            arrivals.append(Arrival(packet.seq, now + wait, flow, ev, ev % 3))
    arrivals += [
        Arrival(draw(seqs), now, draw(st.sampled_from([0, 1, 2, 3, 70_000]))) for _ in range(draw(st.integers(0, 3)))
    ]
    # Seen in order of their stamps, or only roughly so, as from a NIC with several queues.
    coarse = draw(st.sampled_from([1, 64]))
    return sent, sorted(arrivals, key=lambda a: a.t // coarse)


def joined(trace: Trace) -> tuple[Matched, slow.Split]:
    matched = match(samples(*trace, flows=("a>b", "c>d", "e>f"), waiting=WAITING))
    return matched, slow.split(*trace, WAITING)


def name_of(found: Streams, stream: int) -> Stream:
    return int(found.flow[stream]), int(found.key[stream])


@given(traces())
@settings(max_examples=60, deadline=None)
def test_every_arrival_is_first_duplicate_late_or_foreign(trace: Trace) -> None:
    matched, expected = joined(trace)

    def keys(packets: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        flow = np.searchsorted(matched.flow_starts, packets, side="right") - 1
        return sorted(zip(flow.tolist(), matched.seq[packets].tolist(), strict=True))

    assert keys(matched.received) == sorted(expected.first)
    assert keys(matched.duplicate) == sorted((p.flow, p.seq) for p in expected.duplicates)
    assert keys(matched.late) == sorted((p.flow, p.seq) for p in expected.late)
    assert sorted(matched.foreign_flow.tolist()) == sorted(a.flow for a in expected.foreign)
    assert keys(np.flatnonzero(matched.lost)) == sorted(
        (s.flow, s.seq) for s in trace[0] if (s.flow, s.seq) not in expected.first
    )
    for packet, at in zip(keys(matched.received), sorted(expected.first), strict=True):
        assert packet == at


@pytest.mark.parametrize("level", list(Level))
@given(trace=traces())
@settings(max_examples=60, deadline=None)
def test_loss_duplication_and_reordering_per_stream(level: Level, trace: Trace) -> None:
    matched, split = joined(trace)
    found, stream_of = streams(matched, level), LEVELS[level]
    counts, runs, order = loss.counts(found), loss.pattern(found), reorder.reordering(found)
    packets = slow.by_stream(trace[0], stream_of)
    came = slow.received(trace[0], split, stream_of)
    for stream in range(found.count):
        own, key = np.array([stream]), name_of(found, stream)
        mine = packets.get(key, [])
        lost = [(p.flow, p.seq) not in split.first for p in mine]
        assert counts.sent[stream] == len(mine)
        assert counts.lost[stream] == sum(lost)
        assert counts.refused[stream] == sum(p.status != 0 for p in mine)
        assert counts.late[stream] == sum(stream_of(p) == key for p in split.late)
        assert counts.duplicates[stream] == sum(stream_of(p) == key for p in split.duplicates)
        assert counts.replicated[stream] == len({p.seq for p in split.duplicates if stream_of(p) == key})
        assert runs.periods.of(own).tolist() == slow.loss_periods(lost)
        assert runs.distances.of(own).tolist() == slow.loss_distances(lost)

        late = slow.reordered(came.get(key, []))
        assert order.received[stream] == len(came.get(key, []))
        assert order.extents.of(own).tolist() == [p.extent for p in late]
        assert order.late_ns.of(own).tolist() == [p.late_time for p in late]
        assert order.n_reordered[:, stream].tolist() == [slow.n_reordered(came.get(key, []), n) for n in range(1, 17)]
    assert {name_of(found, s) for s in range(found.count)} >= set(packets)


@pytest.mark.parametrize("level", list(Level))
@given(trace=traces())
@settings(max_examples=60, deadline=None)
def test_outage_and_delay_per_stream(level: Level, trace: Trace) -> None:
    matched, split = joined(trace)
    found, stream_of = streams(matched, level), LEVELS[level]
    gaps, waits = outage.outages(found), delays(found)
    for stream, mine in (
        (s, slow.by_stream(trace[0], stream_of).get(name_of(found, s), [])) for s in range(found.count)
    ):
        expected, step = slow.outage(mine, split.first), slow.interval(mine)
        blocked = gaps.blocked_ns(np.array([stream]))
        if expected is None or step is None:
            assert np.isnan(gaps.outage_ns[stream])
            assert blocked is None
        else:
            assert gaps.outage_ns[stream] == pytest.approx(expected, abs=1e-3)
            lost = sum((p.flow, p.seq) not in split.first for p in mine)
            assert blocked == pytest.approx(lost * step)
        own = [split.first[p.flow, p.seq].t - p.t for p in mine if (p.flow, p.seq) in split.first]
        histogram = waits.per_stream[stream]
        assert (histogram is None) == (not own)
        if histogram:
            assert (histogram.total, histogram.smallest, histogram.largest) == (len(own), min(own), max(own))
            if len(own) >= 10:
                assert histogram.percentile("90") == slow.percentile(own, 90)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=30),
    st.lists(st.integers(0, 20), max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_contradictions_to_dead_windows(fates: list[tuple[int, bool]], stamps: list[int]) -> None:
    # Stamps rise by random steps and make windows of four each; those of one EV lie apart.
    edges = np.cumsum(np.array(stamps[: len(stamps) // 4 * 4], dtype=np.int64) + np.arange(len(stamps) // 4 * 4) // 4)
    dead = [(int(a), int(b), int(c), int(d)) for a, b, c, d in edges.reshape(-1, 4)]
    dead = [w for i, w in enumerate(dead) if not i or w[0] > dead[i - 1][3]]
    times = np.cumsum([step for step, _ in fates], dtype=np.int64).tolist()
    sent = [Sent(n, t) for n, t in enumerate(times)]
    arrivals = [Arrival(s.seq, s.t + 1) for s, (_, lost) in zip(sent, fates, strict=True) if not lost]
    evs = streams(match(samples(sent, arrivals)), Level.EV)
    found = lost_in_windows(evs, [DeadWindow(0, 0, *(T0 + t for t in w)) for w in dead] if fates else [])
    packets = [(t, lost) for t, (_, lost) in zip(times, fates, strict=True)]
    assert sum(e.contradictions for e in found.evs) == slow.contradictions(packets, dead)


@given(traces(), st.integers(1, 300), st.integers(-500, 500))
@settings(max_examples=60, deadline=None)
def test_timeline_counts(trace: Trace, width: int, origin: int) -> None:
    matched, split = joined(trace)
    flows = streams(matched, Level.FLOW)
    line = timeline(
        matched, reorder.reordering(flows), window_ns=width, payload_bytes=100, origin_ns=T0 + origin, planes=(0, 1, 2)
    )
    start, count = line.origin_ns - T0, line.sent.shape[1]
    assert not trace[0] or (start - origin) % width == 0
    plane = {(s.flow, s.seq): s.plane for s in trace[0]}
    late: list[tuple[int, int]] = []
    for (flow, _), came in slow.received(trace[0], split, LEVELS[Level.FLOW]).items():
        times = dict(came)
        late += [(plane[flow, p.seq], times[p.seq]) for p in slow.reordered(came)]
    for row, planes in enumerate([{0, 1, 2}, {0}, {1}, {2}]):
        here = [s for s in trace[0] if s.plane in planes]
        arrived = [split.first[s.flow, s.seq].t for s in here if (s.flow, s.seq) in split.first]
        lost = [s.t for s in here if (s.flow, s.seq) not in split.first]
        assert line.sent[row].tolist() == slow.windows((s.t for s in here), start, width, count)
        assert line.delivered[row].tolist() == slow.windows(arrived, start, width, count)
        assert line.lost[row].tolist() == slow.windows(lost, start, width, count)
        assert line.reordered[row].tolist() == slow.windows((t for p, t in late if p in planes), start, width, count)
        assert line.goodput_bps[row].sum() == pytest.approx(len(arrived) * 100 * 8e9 / width)
