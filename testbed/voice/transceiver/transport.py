"""What aiortc's DTLS transport needs of ICE, over the shared socket. It rests on what aiortc keeps to itself.

Only DTLS passes through it: RTP and RTCP are taken before, with the keys that DTLS agreed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

#: Datagrams of DTLS that wait; a handshake's flight is a few.
_MOST_WAITING: Final = 256


class SharedTransport:
    """In the place of an RTCIceTransport."""

    role = "controlled"

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send_now = send
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.state = "completed"

    def put(self, data: bytes) -> bool:
        """A datagram of DTLS came; False where too many wait."""
        if self._queue.qsize() >= _MOST_WAITING:
            return False
        self._queue.put_nowait(data)
        return True

    def close(self) -> None:
        """No more come."""
        self.state = "closed"
        self._queue.put_nowait(None)

    async def _recv(self) -> bytes:
        data = await self._queue.get()
        if data is None:
            raise ConnectionError
        return data

    async def _send(self, data: bytes) -> None:
        if self.state == "closed":
            raise ConnectionError
        self._send_now(data)
