"""A call's connection to its backend: a WebSocket with frames of audio and events, each way with bounded queues.

docs/voice.md has the protocol. Binary messages are PCM of 24,000 samples/s, 16 bits, little-endian, mono; text
messages are events, JSON objects with a `type`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections import Counter, deque
from typing import Any, Final, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from testbed.voice.media.opus import FRAME_BYTES, FRAME_MS, RATE

MOST_MESSAGE: Final = 1 << 20
_CONNECT_S: Final = 5.0
_GOODBYE_S: Final = 1.0
#: What waits to go to the backend: a second of audio, after which the oldest gives way; and so many events.
_MOST_FRAMES: Final = 1000 // FRAME_MS
_MOST_EVENTS: Final = 256
#: What waits to be played: a model may speak faster than time goes.
_MOST_PLAY_BYTES: Final = 60 * 2 * RATE
#: So much is gathered before it is played, so that a little unevenness is not heard.
_GATHER: Final = 2
_GATHER_FRAMES_WAITED: Final = 5


class BackendError(Exception):
    """The backend cannot be reached, or is gone."""


class Listens(Protocol):
    """The call, as far as its backend goes."""

    def event(self, event: dict[str, Any]) -> str | None:
        """Act on an event; what is wrong with it, or None."""

    def backend_gone(self, reason: str) -> None:
        """The connection has ended."""


class Play:
    """PCM that waits to be sent to the client, a frame each 20 ms."""

    def __init__(self) -> None:
        self._pcm = bytearray()
        self._playing = False
        self._waited = 0
        self.overflow_bytes = 0

    def add(self, pcm: bytes) -> None:
        """Add PCM; what is more than a minute is left out and counted."""
        room = max(0, _MOST_PLAY_BYTES - len(self._pcm)) & ~1
        self._pcm += pcm[:room]
        self.overflow_bytes += max(0, len(pcm) - room)

    def clear(self) -> None:
        """Forget what waits: somebody speaks over it."""
        self._pcm.clear()
        self._playing = False

    def frame(self) -> bytes | None:
        """The next frame; None where there is nothing to play."""
        if not self._playing:
            self._waited = self._waited + 1 if self._pcm else 0
            if len(self._pcm) < _GATHER * FRAME_BYTES and self._waited < _GATHER_FRAMES_WAITED:
                return None
            self._playing, self._waited = True, 0
        if not self._pcm:
            self._playing = False
            return None
        frame = bytes(self._pcm[:FRAME_BYTES])
        del self._pcm[:FRAME_BYTES]
        return frame + bytes(FRAME_BYTES - len(frame))


class Backend:
    """The connection of one call."""

    def __init__(self, socket: ClientConnection, dropped: Counter[str]) -> None:
        self._socket, self._dropped = socket, dropped
        self._waiting: deque[bytes | str] = deque()
        self._frames = self._events = 0
        self._some = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self.play = Play()

    @classmethod
    async def reach(cls, url: str, dropped: Counter[str]) -> Backend:
        """Connect. Raises BackendError."""
        try:
            socket = await connect(
                url, compression=None, max_size=MOST_MESSAGE, open_timeout=_CONNECT_S, max_queue=16, proxy=None
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed) as error:
            raise BackendError(f"the backend cannot be reached: {type(error).__name__}") from None
        return cls(socket, dropped)

    def start(self, call: Listens) -> None:
        """Begin to carry both ways."""
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read(call))]

    def audio(self, pcm: bytes) -> None:
        """A frame of the client's; of too many the oldest gives way."""
        if self._frames >= _MOST_FRAMES:
            self._waiting.remove(next(each for each in self._waiting if isinstance(each, bytes)))
            self._frames -= 1
            self._dropped["audio_up"] += 1
        self._waiting.append(pcm)
        self._frames += 1
        self._some.set()

    def tell(self, event: dict[str, Any]) -> bool:
        """An event; False where too many wait already: it is lost."""
        if self._events >= _MOST_EVENTS:
            self._dropped["events_up"] += 1
            return False
        self._waiting.append(json.dumps(event))
        self._events += 1
        self._some.set()
        return True

    async def close(self, reason: str) -> None:
        """Tell the end, give what waits a moment, and close."""
        self._closing = True
        self.tell({"type": "call.end", "reason": reason})
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(_GOODBYE_S):
                while self._waiting:
                    await self._send_next()
                await self._socket.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.transport.abort()

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while not self._closing:
                self._some.clear()
                while self._waiting and not self._closing:
                    await self._send_next()
                await self._some.wait()

    async def _send_next(self) -> None:
        item = self._waiting.popleft()
        if isinstance(item, bytes):
            self._frames -= 1
        else:
            self._events -= 1
        await self._socket.send(item)

    async def _read(self, call: Listens) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                if isinstance(message, bytes):
                    if len(message) % 2:
                        self._refuse("audio of half a sample")
                        continue
                    before = self.play.overflow_bytes
                    self.play.add(message)
                    if self.play.overflow_bytes > before:
                        self._dropped["audio_down"] += 1
                else:
                    wrong = _act(message, call)
                    if wrong:
                        self._refuse(wrong)
        if not self._closing:
            call.backend_gone("backend gone")

    def _refuse(self, wrong: str) -> None:
        self._dropped["refused"] += 1
        self.tell({"type": "error", "message": wrong})


def _act(message: str, call: Listens) -> str | None:
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        return "this is no JSON"
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return "an event is an object with a type"
    return call.event(event)


def carried(data: str | bytes) -> dict[str, str]:
    """A data channel's message as an event has it."""
    return {"text": data} if isinstance(data, str) else {"base64": base64.b64encode(data).decode()}


def content(event: dict[str, Any], most_bytes: int) -> str | bytes:
    """The message in an event. Raises ValueError."""
    text, encoded = event.get("text"), event.get("base64")
    if isinstance(text, str) and encoded is None:
        data: str | bytes = text
        size = len(text.encode("utf-8", "surrogatepass"))
        text.encode()
    elif isinstance(encoded, str) and text is None:
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError("base64 that is none") from None
        size = len(data)
    else:
        raise ValueError("a message has text or base64")
    if size > most_bytes:
        raise ValueError(f"a message of more than {most_bytes:,} bytes")
    return data
