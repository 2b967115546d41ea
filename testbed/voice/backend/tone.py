"""The backend that plays a tone of 440 Hz until its end, as fast as it is taken, and says once what it heard.

It shows how a model speaks: faster than time goes, and cut short where the caller says something: a message on a data
channel, `stop`, clears what waits; `again` begins anew.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

import numpy as np
from websockets.asyncio.server import ServerConnection

from testbed.voice.backend.server import send_event

HERTZ: Final = 440.0
_AMPLITUDE: Final = 8000
_CHUNK_S: Final = 0.2
_CHUNKS: Final = 100


async def tone(call: ServerConnection) -> None:
    """One call."""
    speaking: asyncio.Task[None] | None = None
    rate = 0
    try:
        async for message in call:
            if isinstance(message, bytes):
                continue
            event = json.loads(message)
            if event["type"] == "call.start" and event["audio"]:
                rate = event["audio"]["rate"]
            elif event["type"] == "call.connected" and rate:
                speaking = asyncio.create_task(_speak(call, rate))
            elif event["type"] == "data.message":
                if speaking is not None:
                    speaking.cancel()
                await send_event(call, {"type": "audio.clear"})
                if event.get("text") == "again" and rate:
                    speaking = asyncio.create_task(_speak(call, rate))
                await send_event(call, {"type": "data.send", "channel": event["channel"], "text": "heard"})
    finally:
        if speaking is not None:
            speaking.cancel()


async def _speak(call: ServerConnection, rate: int) -> None:
    for number in range(_CHUNKS):
        at = (number + np.arange(int(rate * _CHUNK_S)) / (rate * _CHUNK_S)) * _CHUNK_S
        await call.send((_AMPLITUDE * np.sin(2 * np.pi * HERTZ * at)).astype("<i2").tobytes())
