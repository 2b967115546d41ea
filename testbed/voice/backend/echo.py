"""The backend that sends everything back: audio, and messages on their channel."""

from __future__ import annotations

import json

from websockets.asyncio.server import ServerConnection

from testbed.voice.backend.server import send_event


async def echo(call: ServerConnection) -> None:
    """One call."""
    async for message in call:
        if isinstance(message, bytes):
            await call.send(message)
            continue
        event = json.loads(message)
        if event["type"] == "data.message":
            kept = {name: event[name] for name in ("channel", "text", "base64") if name in event}
            await send_event(call, {"type": "data.send", **kept})
