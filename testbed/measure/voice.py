"""What a listener hears of RTP: jitter, silence, concealment, delay from mouth to ear, and the E-model's estimate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.measure import delay, loss, outage, reorder
from testbed.measure.arrays import I64, Bool
from testbed.measure.definitions import Report
from testbed.measure.match import Matched
from testbed.measure.percentiles import nearest_rank, samples_needed
from testbed.measure.streams import Level, Scope, streams
from testbed.record import Figure

F64 = npt.NDArray[np.float64]

#: ITU-T G.107 with all defaults but what is measured: its R without delay and loss.
_BEST_R = 93.2
#: ITU-T G.113 Appendix I for G.711 with concealment: what coding costs by itself, and how it bears random loss.
_IE, _BPL = 0.0, 25.1
#: Below this one-way delay the E-model takes nothing off.
_UNNOTICED_MS = 100.0
#: RFC 3550 §6.4.1: the gain of its filter.
_GAIN = 16


@dataclass(frozen=True)
class Listener:
    """What came to one end of a call, and what it made of it.

    Attributes:
        direction: ``up`` from the client, ``down`` to it.
        arrived_ns: shape (n,), when each RTP packet came, in order of arrival.
        ticks: shape (n,), its RTP timestamp, counted on.
        clock_hz: of these.
        frame_ns: shape (m,), when each frame was due at playout, ascending.
        frame_length_ns: shape (m,), its length.
        played: shape (m,), whether what was sent came out, and not something made up.
        frame_delay_ns: shape (m,), from the sending of its packet to playout; below 0 where that is not known.
        late: packets that came when their time was over.
        end_ns: when the call ended.
    """

    direction: str
    arrived_ns: I64
    ticks: I64
    clock_hz: int
    frame_ns: I64
    frame_length_ns: I64
    played: Bool
    frame_delay_ns: I64
    late: int
    end_ns: int


@dataclass(frozen=True)
class Quality:
    """The E-model's estimate, and what it came from.

    Attributes:
        r: rating factor.
        mos: what it maps to.
        delay_s: from mouth to ear.
        concealed: the part of what was to be heard that was made up, 0 to 1.
        burst_ratio: mean length of what was missing at a time over what it would be at random, at least 1.
    """

    r: float
    mos: float
    delay_s: float
    concealed: float
    burst_ratio: float


def jitter_s(arrived_ns: I64, ticks: I64, clock_hz: int) -> F64:
    """The interarrival jitter of RFC 3550 §6.4.1 after each arrival, seconds; 0 after the first."""
    out = np.zeros(arrived_ns.size, np.float64)
    if not arrived_ns.size:
        return out
    # From a near origin, so that a float holds nanoseconds.
    transit = (arrived_ns - arrived_ns[0]) * 1e-9 - (ticks - ticks[0]) / clock_hz
    jitter = 0.0
    for at, difference in enumerate(np.abs(np.diff(transit)).tolist(), start=1):
        jitter += (difference - jitter) / _GAIN
        out[at] = jitter
    return out


def longest_silence_ns(listener: Listener) -> int | None:
    """The longest time between the first frame played and the call's end in which nothing was; None if nothing was.

    What was made up counts as nothing; so does time for which nothing was done at all.
    """
    begins = listener.frame_ns[listener.played]
    if not begins.size:
        return None
    ends = np.maximum.accumulate(begins + listener.frame_length_ns[listener.played])
    gaps = np.append(begins[1:], max(listener.end_ns, int(ends[-1]))) - ends
    return max(int(gaps.max()), 0)


def concealed_runs_ns(listener: Listener) -> list[int]:
    """Length of each stretch of frames made up, between frames played."""
    runs: list[int] = []
    before = True
    for played, length in zip(listener.played.tolist(), listener.frame_length_ns.tolist(), strict=True):
        if not played:
            if before:
                runs.append(0)
            runs[-1] += length
        before = played
    return runs


def quality(listener: Listener) -> Quality | None:
    """The E-model's estimate of what was heard; None where nothing was played or no frame's delay is known."""
    known = listener.frame_delay_ns[listener.played & (listener.frame_delay_ns >= 0)]
    total = int(listener.frame_length_ns.sum())
    if not known.size or not total:
        return None
    frame_ns = int(np.median(listener.frame_length_ns))
    runs = concealed_runs_ns(listener)
    concealed = sum(runs) / total
    mean_run = sum(runs) / len(runs) / frame_ns if runs else 1.0
    burst_ratio = max(1.0, mean_run * (1 - concealed))
    # What is sent had been listened to for the length of a frame.
    delay_s = (float(np.median(known)) + frame_ns) * 1e-9
    r = rating(delay_s, concealed, burst_ratio)
    return Quality(r, mean_opinion(r), delay_s, concealed, burst_ratio)


def rating(delay_s: float, lost: float, burst_ratio: float = 1.0) -> float:
    """R of ITU-T G.107 for a delay (seconds), a loss ratio and a burst ratio, without echo, as if it were G.711."""
    percent = 100 * lost
    impairment = _IE + (95 - _IE) * percent / (percent / burst_ratio + _BPL)
    return _BEST_R - _delay_impairment(1000 * delay_s) - impairment


def _delay_impairment(milliseconds: float) -> float:
    """Idd of ITU-T G.107."""
    if milliseconds <= _UNNOTICED_MS:
        return 0.0
    x = math.log2(milliseconds / _UNNOTICED_MS)
    return 25 * (math.pow(1 + x**6, 1 / 6) - 3 * math.pow(1 + (x / 3) ** 6, 1 / 6) + 2)


def mean_opinion(r: float) -> float:
    """The MOS that an R maps to (ITU-T G.107 Annex B)."""
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    # Just above 0 the polynomial dips below the scale's end.
    return max(1.0, 1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r))


def packet_figures(matched: Matched, directions: Sequence[str], report: Report) -> Iterator[Figure]:
    """Loss, its pattern, order, outage and delay of RTP: of each flow, of each direction, and of all.

    Args:
        matched: the packets.
        directions: of each flow.
        report: makes the figures.
    """
    found = streams(matched, Level.FLOW)
    note = f"waiting time {matched.waiting_time_ns * 1e-9:g} s"
    counts, runs, order = loss.counts(found), loss.pattern(found), reorder.reordering(found)
    gaps, delays = outage.outages(found), delay.delays(found)
    of_flow = np.array([directions[int(flow)] for flow in found.flow])
    by_direction = [Scope(name, np.flatnonzero(of_flow == name)) for name in dict.fromkeys(directions)]
    for scope in [found.everything(), *by_direction, *found.scopes()]:
        yield from loss.loss_figures(counts, scope, report, note)
        yield from loss.duplication_figures(counts, scope, report, note)
        yield from loss.pattern_figures(runs, scope, report)
        yield from reorder.reordering_figures(order, scope, report, note)
        yield from outage.outage_figures(gaps, scope, report)
        yield from delay.delay_figures(delays, scope, report)
    yield report.figure("foreign", matched.foreign_flow.size, matched.samples.arrivals.size, "all")


def heard_figures(listeners: dict[str, Listener], report: Report) -> Iterator[Figure]:
    """What was heard: of each flow by its name, of each direction, and of all."""
    directions = dict.fromkeys(each.direction for each in listeners.values())
    scopes = {"all": list(listeners.values())}
    scopes |= {name: [each for each in listeners.values() if each.direction == name] for name in directions}
    scopes |= {f"flow {name}": [each] for name, each in listeners.items()}
    for scope, several in scopes.items():
        yield from _heard(scope, several, report)


def _heard(scope: str, several: Sequence[Listener], report: Report) -> Iterator[Figure]:
    frames = sum(each.frame_ns.size for each in several)
    jitters = [float(jitter_s(each.arrived_ns, each.ticks, each.clock_hz).max()) for each in several if each.ticks.size]
    packets = sum(each.ticks.size for each in several)
    nothing = "" if jitters else "nothing was received"
    yield report.figure("rtp_jitter", max(jitters, default=None), packets, scope, note=nothing)
    yield report.figure("late_for_playout", sum(each.late for each in several), packets, scope)
    silences = [longest_silence_ns(each) for each in several]
    unheard = f"{silences.count(None)} of {len(several)} heard nothing at all" if None in silences else ""
    longest = None if unheard or not silences else max(filter(None, silences), default=0) * 1e-9
    frame_s = max(
        (int(np.median(each.frame_length_ns)) for each in several if frames and each.frame_ns.size), default=0
    )
    yield report.figure("silence_longest", longest, frames, scope, resolution=frame_s * 1e-9, note=unheard)
    total = sum(int(each.frame_length_ns.sum()) for each in several)
    made_up = sum(int(each.frame_length_ns[~each.played].sum()) for each in several)
    yield report.figure(
        "concealed_ratio", made_up / total if total else None, frames, scope, note="" if total else "nothing was heard"
    )
    yield from _qualities(scope, several, frames, unheard, report)


def _qualities(scope: str, several: Sequence[Listener], frames: int, unheard: str, report: Report) -> Iterator[Figure]:
    found = [each for each in map(quality, several) if each is not None]
    if len(found) < len(several) or not found:
        note = unheard or "the delay of what was heard is not known"
        for name in ("mouth_to_ear", "voice_r", "voice_mos"):
            yield report.figure(name, None, frames, scope, note=note)
        return
    worst = min(found, key=lambda each: each.r)
    slowest = max(found, key=lambda each: each.delay_s)
    yield report.figure("mouth_to_ear", slowest.delay_s, frames, scope)
    note = (
        f"G.711-equivalent estimate, from {worst.delay_s * 1000:.0f} ms, {worst.concealed:.2%} concealed, "
        f"burst ratio {worst.burst_ratio:.1f}"
    )
    yield report.figure("voice_r", worst.r, frames, scope, note=note)
    yield report.figure("voice_mos", worst.mos, frames, scope, note=note)


def call_figures(setup_ns: Sequence[int | None], failed: int, report: Report) -> Iterator[Figure]:
    """How many calls there were, and how long they took to come about.

    Args:
        setup_ns: of each call; None for one that did not come about.
        failed: of those that did, how many ended otherwise than by their client.
        report: makes the figures.
    """
    times = np.array([each for each in setup_ns if each is not None], np.int64)
    yield report.figure("calls", times.size, len(setup_ns), "all")
    yield report.figure("calls_failed", len(setup_ns) - times.size + failed, len(setup_ns), "all")
    median = nearest_rank(times, "50")
    note = "" if median is not None else f"needs {samples_needed('50')} calls, there are {times.size}"
    yield report.figure("setup_time_p50", None if median is None else median * 1e-9, times.size, "all", note=note)
    largest = float(times.max()) * 1e-9 if times.size else None
    yield report.figure("setup_time_max", largest, times.size, "all", note="" if times.size else "no call came about")
