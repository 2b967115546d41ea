"""The signal of the client, and how it is found again."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from testbed.voice.client.signal import BY_CHANCE, RECOGNISED, Ear, Signal
from testbed.voice.media import opus

FRAMES = 400


def heard(signal: Signal, delay: int, change: object = None) -> Ear:
    ear = Ear()
    frames = [signal.frame() for _ in range(FRAMES)]
    for at in range(FRAMES):
        frame = frames[at - delay] if at >= delay else bytes(opus.FRAME_BYTES)
        ear.hear(change(at, frame) if callable(change) else frame, at)
    return ear


@pytest.mark.parametrize("delay", [1, 9, 60])
def test_it_is_found_where_it_is(delay: int) -> None:
    signal = Signal(3)
    found = heard(signal, delay).likeness(signal)
    assert found.matched == 1.0
    assert found.delay_ms == delay * 20
    assert found.compared > 130
    assert found.longest_quiet_ms == 0


@pytest.mark.parametrize("frames", [150, 200, 400])
def test_another_signal_is_not_it(frames: int) -> None:
    """Two hundred others: none comes near."""
    found = []
    for seed in range(200):
        ear, other = Ear(), Signal(seed + 1000)
        ear._tones, ear._at = [other.tone(at) for at in range(frames)], list(range(frames))
        ear._loud = [True] * frames
        found.append(ear.likeness(_of_length(Signal(seed), frames)).matched)
    assert max(found) <= BY_CHANCE < RECOGNISED


def test_one_that_stumbles_all_the_time_is_recognised() -> None:
    """Every half second the delay is another, and each tenth frame is made up: a machine could hardly do worse."""
    random, signal, ear = Random(1), Signal(3), Ear()
    frames = [signal.frame() for _ in range(FRAMES)]
    delay = 20
    for at in range(40, FRAMES):
        delay = random.randrange(5, 40) if at % 25 == 0 else delay
        ear.hear(frames[random.randrange(FRAMES)] if random.random() < 0.1 else frames[at - delay], at)
    found = ear.likeness(signal)
    assert RECOGNISED < found.matched < 0.9


def test_the_same_over_and_over_is_not_it() -> None:
    """What was said once, and is then repeated, is no call."""
    signal, ear = Signal(3), Ear()
    frames = [signal.frame() for _ in range(FRAMES)]
    for at in range(FRAMES):
        ear.hear(frames[at % 25], at)
    assert ear.likeness(signal).matched < RECOGNISED


def _of_length(signal: Signal, frames: int) -> Signal:
    signal.frames = frames
    return signal


def test_opus_leaves_it() -> None:
    signal = Signal(3)
    encoder, decoder = opus.Encoder(), opus.Decoder()
    found = heard(signal, 0, lambda _at, frame: decoder.decode(encoder.encode(frame))).likeness(signal)
    assert found.matched > 0.97


def test_silence_and_noise_are_not_it() -> None:
    signal, random = Signal(3), np.random.default_rng(1)
    silent = heard(signal, 0, lambda _at, _frame: bytes(opus.FRAME_BYTES)).likeness(signal)
    assert (silent.compared, silent.matched) == (0, 0)
    noise = heard(signal, 0, lambda _at, _frame: random.normal(0, 5000, opus.SAMPLES).astype("<i2").tobytes())
    assert noise.likeness(signal).matched < 0.3


def test_a_pause_is_told() -> None:
    signal = Signal(3)
    ear = heard(signal, 0, lambda at, frame: bytes(opus.FRAME_BYTES) if 100 <= at < 120 else frame)
    found = ear.likeness(signal)
    assert found.longest_quiet_ms == 400
    assert 0.9 < found.matched < 1


def test_a_changing_delay_is_followed() -> None:
    signal = Signal(3)
    ear, frames = Ear(), [signal.frame() for _ in range(FRAMES)]
    for at in range(20, FRAMES):
        ear.hear(frames[at - (5 if at < 200 else 12)], at)
    found = ear.likeness(signal)
    assert found.matched > 0.9
