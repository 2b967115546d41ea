"""A call's data channels, which the client opens: their messages as events, and events as messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from aiortc import RTCDataChannel

from testbed.voice.transceiver.backend import Backend, carried, content

_MOST_CHANNELS: Final = 16
_MOST_BUFFERED: Final = 1 << 20


class Channels:
    """All of one call."""

    def __init__(self, backend: Backend, most_bytes: int, dropped: Counter[str], overrun: Callable[[], None]) -> None:
        """To carry messages to and from a backend.

        Args:
            backend: whose events.
            most_bytes: of a message that the client takes.
            dropped: counts what did not pass.
            overrun: told when the backend does not keep up.
        """
        self._backend, self._most, self._dropped, self._overrun = backend, most_bytes, dropped, overrun
        self._channels: dict[int, RTCDataChannel] = {}

    def opened(self, channel: RTCDataChannel) -> None:
        """The client opened one; of too many the last is closed again."""
        number = channel.id
        assert number is not None
        if len(self._channels) >= _MOST_CHANNELS:
            channel.close()
            return
        self._channels[number] = channel
        self._backend.tell({"type": "data.open", "channel": number, "label": channel.label[:256]})

        def message(data: str | bytes) -> None:
            if not self._backend.tell({"type": "data.message", "channel": number, **carried(data)}):
                self._overrun()

        def closed() -> None:
            if self._channels.pop(number, None) is not None:
                self._backend.tell({"type": "data.close", "channel": number})

        channel.on("message", message)
        channel.on("close", closed)

    def send(self, event: dict[str, Any]) -> str | None:
        """Send what an event says; what is wrong with it, or None."""
        number = event.get("channel")
        channel = self._channels.get(number) if isinstance(number, int) else None
        if channel is None or channel.readyState != "open":
            return "no such channel is open"
        try:
            data = content(event, self._most)
        except ValueError as error:
            return str(error)
        if channel.bufferedAmount > _MOST_BUFFERED:
            self._dropped["data_down"] += 1
            return "the client does not take so much"
        channel.send(data)
        return None
