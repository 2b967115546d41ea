"""The jitter buffer, with Opus as it is: what is heard of packets that come late, early, twice or not at all."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.voice.client.signal import Ear, Signal
from testbed.voice.media import opus
from testbed.voice.media.opus import CLOCK, FRAME_BYTES, TICKS
from testbed.voice.media.playout import Playout
from testbed.voice.rtplog import Heard

FRAMES = 300
MS = CLOCK // 1000


@dataclass
class Course:
    """A stream played from packets that come when a test says."""

    playout: Playout
    signal: Signal
    ear: Ear = field(default_factory=Ear)
    told: list[tuple[Heard, int, int]] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    signal, encoder = Signal(), opus.Encoder()
    return [encoder.encode(signal.frame()) for _ in range(FRAMES)]


def play(packets: list[bytes], arrivals: dict[int, float], start: int = 1 << 20) -> Course:
    """``arrivals``: of packets by number, in ms; packet 0 is sent at 0."""
    signal = Signal()
    course = Course(Playout(opus.Decoder()), signal)
    course.playout = Playout(opus.Decoder(), lambda heard, at, ticks, _level: course.told.append((heard, at, ticks)))
    due = sorted((int(at * MS), number) for number, at in arrivals.items())
    for frame in range(FRAMES):
        now = frame * TICKS
        while due and due[0][0] <= now:
            at, number = due.pop(0)
            course.playout.put(number, start + number * TICKS, packets[number], at)
        signal.frames = frame + 1
        pcm = course.playout.take(now)
        assert len(pcm) == FRAME_BYTES
        course.ear.hear(pcm, frame)
        course.levels.append(course.playout.level)
    return course


def even(delay: float = 5.0) -> dict[int, float]:
    return {number: number * 20 + delay for number in range(FRAMES)}


def test_an_even_stream_is_played_whole(packets: list[bytes]) -> None:
    course = play(packets, even())
    tally = course.playout.tally
    assert tally.played >= FRAMES - 4
    assert (tally.concealed, tally.late, tally.corrected, tally.inserted, tally.skipped) == (0, 0, 0, 0, 0)
    likeness = course.ear.likeness(course.signal)
    assert likeness.matched == 1.0
    assert likeness.delay_ms <= 60
    assert likeness.longest_quiet_ms == 0


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_packet_is_one_frame_and_no_more(packets: list[bytes], lost: int) -> None:
    arrivals = even()
    for number in range(150, 150 + lost):
        del arrivals[number]
    assert opus.has_correction(packets[150 + lost])
    course = play(packets, arrivals)
    tally = course.playout.tally
    # The last is restored from the next packet; for one before it there is only the codec's guess.
    assert (tally.corrected, tally.concealed) == (1, lost - 1)
    assert (tally.late, tally.inserted, tally.skipped) == (0, 0, 0)
    likeness = course.ear.likeness(course.signal)
    assert likeness.matched >= 0.98
    # What is made up is no silence.
    assert likeness.longest_quiet_ms == 0
    # The delay stays what it was: nothing freezes, and nothing is held back afterwards.
    assert max(course.levels[160:]) <= 3 * TICKS


def test_reordered_packets_are_played_in_order(packets: list[bytes]) -> None:
    arrivals = even()
    for number in range(50, 250, 10):
        arrivals[number], arrivals[number + 1] = arrivals[number + 1], arrivals[number]
    course = play(packets, arrivals)
    tally = course.playout.tally
    assert tally.late + tally.concealed + tally.corrected <= 2, tally
    assert course.ear.likeness(course.signal).matched >= 0.97


def test_packets_that_come_twice_are_played_once(packets: list[bytes]) -> None:
    course = Course(Playout(opus.Decoder()), Signal())
    for number in range(3):
        for _ in range(2):
            course.playout.put(number, 5000 + number * TICKS, packets[number], number * TICKS)
    assert course.playout.tally.duplicate == 3


def test_a_path_that_becomes_slower_costs_a_gap_and_no_packet(packets: list[bytes]) -> None:
    arrivals = {number: at + (120 if number >= 100 else 0) for number, at in even().items()}
    course = play(packets, arrivals)
    tally = course.playout.tally
    assert tally.late <= 1, tally
    assert tally.concealed <= 8, tally
    assert course.ear.likeness(course.signal).longest_quiet_ms <= 120


def test_a_silence_of_the_network_ends_with_it(packets: list[bytes]) -> None:
    arrivals = {number: at for number, at in even().items() if not 100 <= number < 120}
    course = play(packets, arrivals)
    likeness = course.ear.likeness(course.signal)
    # 20 packets are lost; the codec's concealment fades, then there is silence; what comes after is heard at once.
    assert likeness.longest_quiet_ms <= 400
    assert course.playout.tally.concealed + course.playout.tally.corrected == 20
    assert course.playout.tally.late == 0
    assert max(course.levels[140:]) <= 3 * TICKS


def test_jitter_raises_the_delay_and_its_end_lowers_it(packets: list[bytes]) -> None:
    random_ = random.Random(4)
    arrivals = {number: number * 20 + (random_.uniform(0, 80) if number < 150 else 5.0) for number in range(FRAMES)}
    course = play(packets, arrivals)
    tally = course.playout.tally
    assert tally.inserted + tally.concealed > 0
    assert tally.skipped > 0
    assert max(course.levels[60:150]) > max(course.levels[270:])
    assert course.ear.likeness(course.signal).matched > 0.8
    late = tally.late / 150
    assert late < 0.1, tally


def test_what_becomes_of_each_frame_is_told(packets: list[bytes]) -> None:
    arrivals = even()
    del arrivals[100]
    arrivals[150] += 300
    course = play(packets, arrivals)
    by_kind = {kind: [at for heard, at, _ in course.told if heard is kind] for kind in Heard}
    start = 1 << 20
    assert by_kind[Heard.LATE] == [start + 150 * TICKS]
    gaps = {start + 100 * TICKS, start + 150 * TICKS}
    assert set(by_kind[Heard.CONCEALED]) <= gaps
    played = by_kind[Heard.PLAYED] + by_kind[Heard.CONCEALED]
    assert sorted(played) == [start + number * TICKS for number in range(len(played))]


def test_a_long_pause_is_a_new_beginning(packets: list[bytes]) -> None:
    playout = Playout(opus.Decoder())
    playout.put(0, 1000, packets[0], 0)
    playout.put(1, 1000 + 10 * CLOCK, packets[1], TICKS)
    for at in range(6):
        playout.take((2 + at) * TICKS)
    assert playout.tally.played == 1


def test_what_is_no_opus_is_counted(packets: list[bytes]) -> None:
    playout = Playout(opus.Decoder())
    for payload in (b"", b"\xff" * 3000, b"\x03"):
        playout.put(0, 1000, payload, 0)
    assert playout.tally.refused == 3
    assert playout.take(0) == bytes(FRAME_BYTES)


_ROW = st.tuples(st.integers(0, 400), st.integers(-4 * CLOCK, 4 * CLOCK), st.binary(max_size=40), st.integers(0, 3000))


@settings(max_examples=30, deadline=None)
@given(st.lists(_ROW, max_size=60))
def test_any_packets_give_even_frames_and_bounded_memory(rows: list[tuple[int, int, bytes, int]]) -> None:
    playout = Playout(opus.Decoder())
    now = 0
    for seq, offset, payload, wait in rows:
        now += wait
        playout.put(seq, (1 << 33) + offset, payload, now)
        assert len(playout.take(now)) == FRAME_BYTES
        assert playout.level <= 260 * opus.MOST_TICKS


def test_concealment_continues_the_sound(packets: list[bytes]) -> None:
    decoder = opus.Decoder()
    played = [decoder.decode(each) for each in packets[:50]]
    concealed = np.frombuffer(decoder.conceal(TICKS), "<i2").astype(float)
    before = np.frombuffer(played[-1], "<i2").astype(float)
    assert np.sqrt(np.mean(concealed**2)) > 0.3 * np.sqrt(np.mean(before**2))
