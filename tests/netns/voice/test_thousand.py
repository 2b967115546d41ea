"""A thousand sessions on one port of the relay and one of the transceiver. It takes one to three minutes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from testbed.voice.client.signal import RECOGNISED, Ear, Signal
from testbed.voice.media import opus
from tests.netns.voice.calls import ADDRESS, ask, scene
from tests.netns.voice.light import LightCall, LightCalls, light_calls
from tests.netns.voice.within import isolated

SESSIONS, WITH_MEDIA = 1000, 30
FRAMES = 400


@pytest.mark.timeout(420)
@pytest.mark.alone
@pytest.mark.once
@isolated
def test_a_thousand_sessions_thirty_with_media(tmp_path: Path) -> None:
    with scene(tmp_path) as made, light_calls(made.transceiver.url, ADDRESS) as light:
        began = time.monotonic()
        light.set_up(SESSIONS - WITH_MEDIA, 300)
        print(f"{SESSIONS - WITH_MEDIA} handshakes in {time.monotonic() - began:.1f} s")
        light.set_up(WITH_MEDIA, 60, "sendrecv")
        speaking = light.calls[-WITH_MEDIA:]
        speak(light, speaking)
        figures = made.transceiver.figures()
        assert figures['calls{state="connected"}'] == SESSIONS
        assert figures['call_changes_total{change="connected"}'] == SESSIONS
        assert sum(each["sessions"] for each in made.relay.status()["workers"]) >= SESSIONS
        assert len({call.relay for call in light.calls}) == 1
        # Each is kept alive by its checks.
        deadline = time.monotonic() + 30
        while min(call.checks_answered for call in light.calls) < 2:
            assert time.monotonic() < deadline, "not within 30 s: two checks of each call answered"
            light.turn(0.05)
        likenesses = [heard(call, seed) for seed, call in enumerate(speaking)]
        print(f"matched: {sorted(round(matched, 2) for matched, _ in likenesses)}")
        # Each has heard itself, and no other: what another says would fit by chance only.
        assert min(compared for _, compared in likenesses) >= 50, likenesses
        assert min(matched for matched, _ in likenesses) >= RECOGNISED, likenesses
        # One more than it takes is refused.
        status, headers, text = ask(made.transceiver.url, "POST", light.offer())
        assert (status, headers["Retry-After"]) == (503, "2"), text


def speak(light: LightCalls, calls: list[LightCall]) -> None:
    """Play a signal of its own on each of them, encoded before, a packet each 20 ms."""
    packets = list(zip(*(encoded(Signal(seed)) for seed in range(len(calls))), strict=True))
    for call in calls:
        # Silence, until the last was set up.
        call.arrived.clear()
    began = time.monotonic()
    for number, each in enumerate(packets):
        while (left := began + number * 0.02 - time.monotonic()) > 0:
            light.turn(left)
        for call, packet in zip(calls, each, strict=True):
            call.say(packet)
        light.turn(0)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        light.turn(0.02)


def encoded(signal: Signal) -> list[bytes]:
    encoder = opus.Encoder()
    return [encoder.encode(signal.frame()) for _ in range(FRAMES)]


def heard(call: LightCall, seed: int) -> tuple[float, int]:
    """How much of what came back is its own signal, and how many frames were compared."""
    signal, ear, decoder = Signal(seed), Ear(), opus.Decoder()
    signal.frames = FRAMES
    first = min(call.arrived)
    for timestamp in range(first, first + FRAMES * opus.TICKS, opus.TICKS):
        payload = call.arrived.get(timestamp)
        pcm = decoder.conceal(opus.TICKS) if payload is None else decoder.decode(payload)
        ear.hear(pcm, (timestamp - first) // opus.TICKS + 25)
    likeness = ear.likeness(signal)
    return likeness.matched, likeness.compared
