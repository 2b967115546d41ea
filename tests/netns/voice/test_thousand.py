"""A thousand sessions on one port of the relay and one of the transceiver. It takes one to three minutes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from testbed.voice.client.signal import Ear, Signal
from testbed.voice.media import opus
from tests.netns.voice.calls import ADDRESS, ask, scene
from tests.netns.voice.light import LightCall, LightCalls, light_calls
from tests.netns.voice.within import isolated

SESSIONS, WITH_MEDIA = 1000, 30
FRAMES = 400


@pytest.mark.timeout(420)
@pytest.mark.alone
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
        # Each has been kept alive by its checks meanwhile.
        assert min(call.checks_answered for call in light.calls) >= 2
        likenesses = [heard(call) for call in speaking]
        print(f"matched: {sorted(round(matched, 2) for matched, _ in likenesses)}")
        # Media went both ways on each of them. How well it was heard depends on how much of its time a machine gives
        # the transceiver, and is told above; other tests look at content.
        assert min(len(call.arrived) for call in speaking) >= 50
        # One more than it takes is refused.
        status, headers, text = ask(made.transceiver.url, "POST", light.offer())
        assert (status, headers["Retry-After"]) == (503, "2"), text


def speak(light: LightCalls, calls: list[LightCall]) -> None:
    """Play the signal on all of them, encoded once, a packet each 20 ms."""
    signal, encoder = Signal(), opus.Encoder()
    packets = [encoder.encode(signal.frame()) for _ in range(FRAMES)]
    for call in calls:
        # Silence, until the last was set up.
        call.arrived.clear()
    began = time.monotonic()
    for number, packet in enumerate(packets):
        while (left := began + number * 0.02 - time.monotonic()) > 0:
            light.turn(left)
        for call in calls:
            call.say(packet)
        light.turn(0)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        light.turn(0.02)


def heard(call: LightCall) -> tuple[float, int]:
    """How much of what came back is the signal, and how many frames were compared."""
    signal, ear, decoder = Signal(), Ear(), opus.Decoder()
    signal.frames = FRAMES
    first = min(call.arrived)
    for timestamp in range(first, first + FRAMES * opus.TICKS, opus.TICKS):
        payload = call.arrived.get(timestamp)
        pcm = decoder.conceal(opus.TICKS) if payload is None else decoder.decode(payload)
        ear.hear(pcm, (timestamp - first) // opus.TICKS + 25)
    likeness = ear.likeness(signal)
    return likeness.matched, likeness.compared
