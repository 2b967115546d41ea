"""``python -m tests.netns.voice.wrtc_call URL SECONDS``: a call by libwebrtc, Chrome's own. Prints JSON.

Ends at a line on standard input too, and when the connection has ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from typing import Any

import numpy as np
import webrtc

from testbed.voice.client.signal import Ear, Signal
from testbed.voice.media.opus import FRAME_BYTES, RATE, SAMPLES
from testbed.voice.media.pace import pace


async def call(url: str, seconds: float) -> dict[str, Any]:
    signal, ear, began = Signal(), Ear(), time.monotonic()
    connection = webrtc.RTCPeerConnection()
    generator = webrtc.MediaStreamTrackGenerator("audio")
    connection.add_track(generator)
    channel = connection.create_data_channel("events")
    states: list[tuple[str, float]] = []
    connected, over = asyncio.Event(), asyncio.Event()
    returned: list[str] = []
    reading: list[asyncio.Task[None]] = []

    def changed(_event: object) -> None:
        state = str(connection.connection_state.value)
        states.append((state, time.monotonic() - began))
        if state == "connected":
            connected.set()
        elif state in ("failed", "closed"):
            connected.set()
            over.set()

    connection.on("connectionstatechange", changed)
    connection.on("track", lambda event: reading.append(asyncio.create_task(listen(event.track, ear, signal))))
    channel.on("message", lambda event: returned.append(event.data))
    channel.on("close", lambda _event: over.set())
    await connection.set_local_description(await connection.create_offer())
    answer, location = await asyncio.to_thread(post, url, connection.local_description.sdp)
    await connection.set_remote_description(webrtc.RTCSessionDescriptionInit(sdp=answer, type="answer"))
    async with asyncio.timeout(20):
        await connected.wait()
    print("connected", file=sys.stderr, flush=True)
    writer = generator.writable.get_writer()
    sent: list[str] = []

    def tick() -> None:
        pcm = signal.frame()
        init = webrtc.AudioDataInit(
            format="s16", sample_rate=RATE, number_of_frames=SAMPLES, number_of_channels=1, timestamp=0, data=pcm
        )
        writer.write(webrtc.AudioData(init))
        if signal.frames % 10 == 0 and channel.ready_state == "open":
            sent.append(f"message {len(sent)}")
            channel.send(sent[-1])

    pacing = asyncio.create_task(pace(tick, lambda _frames: None))
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, stopped.set)
    waits = [asyncio.create_task(event.wait()) for event in (over, stopped)]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in (pacing, *waits, *reading):
        task.cancel()
    lasted = time.monotonic() - began
    channel_state = str(channel.ready_state.value)
    connection.close()
    likeness = ear.likeness(signal)
    return {
        "states": states,
        "lasted_s": lasted,
        "channel": channel_state,
        "compared": likeness.compared,
        "matched": likeness.matched,
        "delay_ms": likeness.delay_ms,
        "longest_quiet_ms": likeness.longest_quiet_ms,
        "messages_sent": len(sent),
        "messages_right": sum(one == other for one, other in zip(sent, returned, strict=False)),
        "location": location,
    }


async def listen(track: Any, ear: Ear, signal: Signal) -> None:
    processor = webrtc.MediaStreamTrackProcessor(webrtc.MediaStreamTrackProcessorInit(track, 100))
    pcm = bytearray()
    async for data in processor.readable:
        with data:
            samples = np.frombuffer(bytes(data._data), "<i2").reshape(-1, data.number_of_channels)[:, 0]
            step = int(data.sample_rate) // RATE
            pcm += samples[: len(samples) // step * step].reshape(-1, step).mean(1).astype("<i2").tobytes()
        while len(pcm) >= FRAME_BYTES:
            ear.hear(bytes(pcm[:FRAME_BYTES]), signal.frames)
            del pcm[:FRAME_BYTES]


def post(url: str, offer: str) -> tuple[str, str]:
    request = urllib.request.Request(url, offer.encode(), {"Content-Type": "application/sdp"}, method="POST")
    with urllib.request.urlopen(request, timeout=15) as response:
        return response.read().decode(), response.headers["Location"]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(call(sys.argv[1], float(sys.argv[2])))))
