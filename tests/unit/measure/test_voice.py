"""What listeners hear: worked by hand, and against a slow reading of the definitions on random traces."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure.definitions import Report
from testbed.measure.match import match
from testbed.measure.voice import (
    Listener,
    call_figures,
    concealed_runs_ns,
    heard_figures,
    jitter_s,
    longest_silence_ns,
    mean_opinion,
    packet_figures,
    quality,
    rating,
)
from testbed.record import Figure
from tests.unit.measure.traces import MS, T0, Arrival, Sent, samples

HZ, TICKS, FRAME = 48_000, 960, 20 * MS
REPORT = Report()


class Frame(NamedTuple):
    at_ms: float
    played: bool = True
    delay_ms: float = -1
    length_ms: float = 20


def listener(
    frames: list[Frame],
    arrivals: list[tuple[float, int]] | None = None,
    *,
    end_ms: float = 0,
    late: int = 0,
    direction: str = "down",
) -> Listener:
    """``arrivals``: (milliseconds, timestamp)."""
    arrivals = arrivals or []
    return Listener(
        direction,
        np.array([T0 + round(at * MS) for at, _ in arrivals], np.int64),
        np.array([ticks for _, ticks in arrivals], np.int64),
        HZ,
        np.array([T0 + round(each.at_ms * MS) for each in frames], np.int64),
        np.array([round(each.length_ms * MS) for each in frames], np.int64),
        np.array([each.played for each in frames], np.bool_),
        np.array([round(each.delay_ms * MS) if each.delay_ms >= 0 else -1 for each in frames], np.int64),
        late,
        T0 + round(end_ms * MS),
    )


def value(figures: list[Figure], name: str, scope: str = "all") -> float | None:
    (found,) = (each for each in figures if (each.name, each.scope) == (name, scope))
    return found.value


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_jitter_of_four_packets_of_which_one_is_16_ms_late() -> None:
    arrivals = np.array([0, 20, 56, 60], np.int64) * MS + T0
    found = jitter_s(arrivals, np.arange(4, dtype=np.int64) * TICKS, HZ)
    # D is 0, 16 ms, then 16 ms back: J = 16/16 = 1 ms, then 1 + (16 - 1)/16 ms.
    assert found == pytest.approx([0, 0, 1e-3, 1e-3 + 15e-3 / 16], abs=1e-12)


def test_jitter_takes_packets_in_order_of_arrival() -> None:
    # The second and third change places: 20 ms apart in time, -20 ms by timestamps.
    arrivals = np.array([0, 40, 60], np.int64) * MS + T0
    found = jitter_s(arrivals, np.array([0, 2 * TICKS, TICKS], np.int64), HZ)
    assert found == pytest.approx([0, 0, 40e-3 / 16], abs=1e-12)
    assert jitter_s(arrivals[:0], arrivals[:0], HZ).size == 0


def test_silence_is_what_lies_between_frames_that_were_played() -> None:
    frames = [Frame(0), Frame(20), Frame(40, played=False), Frame(60, played=False), Frame(80), Frame(100)]
    assert longest_silence_ns(listener(frames, end_ms=120)) == 40 * MS
    # A process that stood still for a second wrote nothing: silence all the same.
    assert longest_silence_ns(listener([*frames, Frame(1120)], end_ms=1140)) == 1000 * MS
    # So is what is missing at the end, and what comes before the first frame is not.
    assert longest_silence_ns(listener([Frame(0, played=False), Frame(500), Frame(520)], end_ms=700)) == 160 * MS
    assert longest_silence_ns(listener([Frame(0, played=False)], end_ms=700)) is None


def test_frames_played_in_a_burst_overlap_and_are_no_silence() -> None:
    frames = [Frame(0), Frame(5), Frame(6), Frame(30)]
    assert longest_silence_ns(listener(frames, end_ms=50)) == 4 * MS


def test_the_e_model_on_worked_examples() -> None:
    assert rating(0.0, 0.0) == pytest.approx(93.2)
    assert rating(0.1, 0.0) == pytest.approx(93.2)
    # X = log2(200/100) = 1: 25 * (2^(1/6) - 3 (1 + 3^-6)^(1/6) + 2)
    assert rating(0.2, 0.0) == pytest.approx(93.2 - 25 * (2 ** (1 / 6) - 3 * (1 + 3**-6) ** (1 / 6) + 2))
    # 95 * 5 / (5 + 25.1), and with bursts twice as long as at random 95 * 5 / (2.5 + 25.1)
    assert rating(0.0, 0.05) == pytest.approx(93.2 - 475 / 30.1)
    assert rating(0.0, 0.05, 2.0) == pytest.approx(93.2 - 475 / 27.6)
    assert mean_opinion(93.2) == pytest.approx(4.41, abs=0.005)
    assert mean_opinion(50) == pytest.approx(1 + 1.75 + 7e-6 * 50 * -10 * 50)
    assert (mean_opinion(-3), mean_opinion(100), mean_opinion(1)) == (1.0, 4.5, 1.0)


def test_quality_comes_from_what_was_played_and_when() -> None:
    # 2 of 10 frames made up, next to each other: twice as long as one, 0.8 of it expected at random.
    frames = [Frame(20 * n, played=n not in (4, 5), delay_ms=60 if n not in (4, 5) else -1) for n in range(10)]
    found = quality(listener(frames, end_ms=200))
    assert found is not None
    assert found.delay_s == pytest.approx(0.080)
    assert found.concealed == pytest.approx(0.2)
    assert found.burst_ratio == pytest.approx(1.6)
    assert found.r == pytest.approx(rating(0.08, 0.2, 1.6))
    assert quality(listener([Frame(0)], end_ms=20)) is None, "its delay is not known"
    assert quality(listener([], end_ms=20)) is None


def test_a_direction_is_as_good_as_its_worst_listener() -> None:
    good = listener([Frame(20 * n, delay_ms=40) for n in range(50)], [(0, 0), (20, TICKS)], end_ms=1000, direction="up")
    bad = listener(
        [Frame(20 * n, played=n % 5 > 0 or n == 0, delay_ms=90) for n in range(50)],
        [(0, 0), (36, TICKS)],
        end_ms=1000,
        late=3,
    )
    found = list(heard_figures({"call 0 up": good, "call 0 down": bad}, REPORT))
    assert value(found, "voice_mos", "up") == value(found, "voice_mos", "flow call 0 up")
    assert value(found, "voice_mos") == value(found, "voice_mos", "down")
    mos_up, mos_down = value(found, "voice_mos", "up"), value(found, "voice_mos", "down")
    assert mos_up is not None
    assert mos_down is not None
    assert mos_up > mos_down
    assert value(found, "rtp_jitter") == pytest.approx(1e-3)
    assert value(found, "late_for_playout") == 3
    assert value(found, "silence_longest", "up") == 0
    assert value(found, "silence_longest", "down") == pytest.approx(0.02)
    assert value(found, "concealed_ratio") == pytest.approx(9 / 100)
    assert value(found, "mouth_to_ear") == pytest.approx(0.11)


def test_who_heard_nothing_makes_the_silence_of_all_unknown_and_not_short() -> None:
    good = listener([Frame(0, delay_ms=40)], [(0, 0)], end_ms=20, direction="up")
    deaf = listener([Frame(0, played=False)], end_ms=20)
    found = list(heard_figures({"call 0 up": good, "call 0 down": deaf}, REPORT))
    for name in ("silence_longest", "voice_mos", "voice_r", "mouth_to_ear"):
        assert value(found, name) is None, name
        assert value(found, name, "down") is None, name
        assert value(found, name, "up") is not None, name


def test_calls_that_did_not_come_about_have_failed() -> None:
    found = list(call_figures([100 * MS, None, 300 * MS, 200 * MS], 1, REPORT))
    assert [value(found, name) for name in ("calls", "calls_failed")] == [3, 2]
    assert value(found, "setup_time_p50") == pytest.approx(0.2)
    assert value(found, "setup_time_max") == pytest.approx(0.3)
    nobody = list(call_figures([None], 0, REPORT))
    assert [value(nobody, name) for name in ("calls", "calls_failed")] == [0, 1]
    assert value(nobody, "setup_time_max") is None


def test_packets_are_counted_by_flow_and_direction() -> None:
    flows = ("call 0 up", "call 0 down", "call 1 up")
    sent = [Sent(n, n * FRAME, flow=flow) for n in range(100) for flow in range(3)]
    arrivals = [Arrival(each.seq, each.t + MS, flow=each.flow) for each in sent if (each.flow, each.seq // 3) != (1, 5)]
    found = list(packet_figures(match(samples(sent, arrivals, flows=flows)), ["up", "down", "up"], REPORT))
    assert value(found, "lost") == value(found, "lost", "down") == value(found, "lost", "flow call 0 down") == 3
    assert value(found, "loss_period_max", "down") == 3
    assert value(found, "sent", "up") == 200
    assert value(found, "lost", "up") == 0
    assert value(found, "outage", "down") == pytest.approx(0.060)


# -- against a slow reading -------------------------------------------------------------------------------------------

FRAMES = st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.sampled_from([10, 20, 60])), min_size=1, max_size=60)


@given(FRAMES, st.integers(0, 500))
def test_silence_and_runs_millisecond_by_millisecond(drawn: list[tuple[int, bool, int]], tail: int) -> None:
    at, frames = 0, []
    for step, played, length in drawn:
        at += step
        frames.append(Frame(at, played, 40, length))
    end = at + tail
    found = listener(frames, end_ms=end)
    sounding = set()
    for frame in frames:
        if frame.played:
            sounding |= set(range(int(frame.at_ms), int(frame.at_ms + frame.length_ms)))
    if not sounding:
        assert longest_silence_ns(found) is None
        return
    longest = run = 0
    for moment in range(min(sounding), max(end, max(sounding) + 1)):
        run = 0 if moment in sounding else run + 1
        longest = max(longest, run)
    assert longest_silence_ns(found) == longest * MS
    text = "".join("x" if frame.played else "." for frame in frames)
    assert len(concealed_runs_ns(found)) == len([part for part in text.split("x") if part])
    assert sum(concealed_runs_ns(found)) == sum(frame.length_ms for frame in frames if not frame.played) * MS


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 2**20)), max_size=40))
def test_jitter_packet_by_packet(drawn: list[tuple[int, int]]) -> None:
    arrived = sorted(t for t, _ in drawn)
    ticks = [each for _, each in drawn]
    found = jitter_s(np.array(arrived, np.int64) + T0, np.array(ticks, np.int64), HZ)
    jitter, last = 0.0, None
    for number, (t, tick) in enumerate(zip(arrived, ticks, strict=True)):
        if last is not None:
            d = (t - last[0]) / 1e9 - (tick - last[1]) / HZ
            jitter = jitter + (abs(d) - jitter) / 16
        last = (t, tick)
        assert found[number] == pytest.approx(jitter, abs=1e-9)


@given(st.floats(0, 2), st.floats(0, 1), st.floats(1, 50))
def test_the_rating_follows_its_published_form(delay: float, lost: float, burst: float) -> None:
    milliseconds, percent = delay * 1000, lost * 100
    idd = 0.0
    if milliseconds > 100:
        x = math.log10(milliseconds / 100) / math.log10(2)
        idd = 25 * (math.pow(1 + math.pow(x, 6), 1 / 6) - 3 * math.pow(1 + math.pow(x / 3, 6), 1 / 6) + 2)
    expected = 93.2 - idd - 95 * percent / (percent / burst + 25.1)
    assert rating(delay, lost, burst) == pytest.approx(expected, abs=1e-9)
    assert 1 <= mean_opinion(rating(delay, lost, burst)) <= 4.5
