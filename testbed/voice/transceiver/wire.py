"""JSON objects over a stream socket between the two processes of a transceiver, a line each."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final, Self

#: An offer of 64 KiB, each byte of it escaped, fits; and what a hundred thousand calls that are over have proven.
_MOST_LINE: Final = 1 << 24


class Wire:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Self:
        """On a connected socket."""
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_MOST_LINE)
        return cls(reader, writer)

    def say(self, message: dict[str, Any]) -> None:
        """Send one. Nothing is said where the other end is gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next; None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    async def flush(self) -> None:
        """Wait until what was said is on its way."""
        await self._writer.drain()

    def close(self) -> None:
        """Close this end."""
        self._writer.close()
