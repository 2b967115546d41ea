"""A WebSocket server for one of the backends that ship. docs/voice.md has the protocol."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from testbed.kernel import many_descriptors
from testbed.voice.addresses import Address
from testbed.voice.sockets import address_of, bound

_MOST_MESSAGE: Final = 1 << 20
_INTERRUPTED: Final = 128 + signal.SIGINT

Handler = Callable[[ServerConnection], Awaitable[None]]


async def send_event(call: ServerConnection, event: dict[str, Any]) -> None:
    """Send an event to the transceiver."""
    await call.send(json.dumps(event))


async def run(name: str, handler: Handler, listen: Address, tell: Callable[[str], None]) -> int:
    """Serve until a signal; returns the exit code. Raises UsageError.

    Args:
        name: of the backend.
        handler: has one call each, from its first message on.
        listen: where.
        tell: takes a line when it is ready.
    """
    many_descriptors()
    sock = bound(listen, socket.SOCK_STREAM, "--listen")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    codes = [0]

    def stopped(code: int) -> None:
        codes.append(code)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stopped, 0)
    loop.add_signal_handler(signal.SIGINT, stopped, _INTERRUPTED)

    async def one(call: ServerConnection) -> None:
        try:
            await handler(call)
        except ConnectionClosed:
            return

    # Connections of a thousand calls may come at once.
    async with serve(one, sock=sock, compression=None, max_size=_MOST_MESSAGE, backlog=1024):
        tell(f"backend {os.getpid()}: {name} at ws://{address_of(sock)}/")
        await stop.wait()
    return codes[-1]
