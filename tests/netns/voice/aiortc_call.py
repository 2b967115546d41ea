"""``python -m tests.netns.voice.aiortc_call URL SECONDS``: a call by aiortc alone, its own media included. Prints JSON.

The testbed's own client takes RTP before aiortc does; this one shows that aiortc's sender and receiver are served too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from fractions import Fraction
from typing import Any

import aiohttp
import av
import numpy as np
from aiortc import AudioStreamTrack, RTCPeerConnection, RTCSessionDescription

from testbed.voice.client.signal import Ear, Signal
from testbed.voice.media.opus import FRAME_BYTES, RATE, SAMPLES


class Playing(AudioStreamTrack):
    """The signal, 20 ms a frame, as fast as time goes."""

    def __init__(self) -> None:
        super().__init__()
        self.signal = Signal()

    async def recv(self) -> av.AudioFrame:
        paced: Any = await super().recv()
        samples = np.frombuffer(self.signal.frame(), "<i2").reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
        # The base class's frames are of 8,000 samples a second.
        frame.pts = paced.pts * RATE // paced.sample_rate
        assert frame.samples == SAMPLES
        return frame


async def call(url: str, seconds: float) -> dict[str, Any]:
    connection, playing, ear = RTCPeerConnection(), Playing(), Ear()
    connection.addTrack(playing)
    channel = connection.createDataChannel("events")
    returned: list[str] = []
    channel.on("message", returned.append)
    listening: list[asyncio.Task[None]] = []
    connection.on("track", lambda track: listening.append(asyncio.create_task(listen(track, ear, playing.signal))))
    connected = asyncio.Event()
    connection.on(
        "connectionstatechange", lambda: connected.set() if connection.connectionState == "connected" else None
    )
    await connection.setLocalDescription(await connection.createOffer())
    async with aiohttp.ClientSession() as http:
        headers = {"Content-Type": "application/sdp"}
        async with http.post(url, data=connection.localDescription.sdp.encode(), headers=headers) as response:
            assert response.status == 201, await response.text()
            answer = await response.text()
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    async with asyncio.timeout(20):
        await connected.wait()
    print("connected", file=sys.stderr, flush=True)
    sent = [f"message {number}" for number in range(10)]
    for text in sent:
        await asyncio.sleep(seconds / len(sent))
        channel.send(text)
    await asyncio.sleep(1)
    for task in listening:
        task.cancel()
    await connection.close()
    likeness = ear.likeness(playing.signal)
    return {"compared": likeness.compared, "matched": likeness.matched, "right": returned == sent}


async def listen(track: Any, ear: Ear, signal: Signal) -> None:
    resampler, pcm = av.AudioResampler(format="s16", layout="mono", rate=RATE), bytearray()
    while True:
        for frame in resampler.resample(await track.recv()):
            pcm += frame.to_ndarray().astype("<i2").tobytes()
        while len(pcm) >= FRAME_BYTES:
            ear.hear(bytes(pcm[:FRAME_BYTES]), signal.frames)
            del pcm[:FRAME_BYTES]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(call(sys.argv[1], float(sys.argv[2])))))
