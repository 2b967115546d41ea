"""A call's connection to its backend, over a real WebSocket on loopback."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from testbed.voice.media.opus import FRAME_BYTES
from testbed.voice.transceiver.backend import Backend, BackendError, _act, content

FRAME = b"\x01\x00" * (FRAME_BYTES // 2)


class Call:
    """Keeps what its backend says."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.gone = asyncio.Event()

    def event(self, event: dict[str, Any]) -> str | None:
        self.events.append(event)
        return "not wanted" if event["type"] == "bad" else None

    def backend_gone(self, reason: str) -> None:
        assert reason == "backend gone"
        self.gone.set()


def run(
    server: Callable[[ServerConnection], Awaitable[None]],
    body: Callable[[Backend, Call, Counter[str]], Awaitable[None]],
) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), serve(server, "127.0.0.1", 0, compression=None) as served:
            port = served.sockets[0].getsockname()[1]
            dropped: Counter[str] = Counter()
            backend, call = await Backend.reach(f"ws://127.0.0.1:{port}/", dropped), Call()
            backend.start(call)
            await body(backend, call, dropped)
            await backend.close("test is over")

    asyncio.run(whole())


def test_audio_and_events_arrive_in_order_and_the_end_is_told() -> None:
    heard: list[str | bytes] = []

    async def server(socket: ServerConnection) -> None:
        heard.extend([message async for message in socket])

    async def body(backend: Backend, _call: Call, _dropped: Counter[str]) -> None:
        backend.tell({"type": "first"})
        backend.audio(FRAME)
        backend.tell({"type": "second"})

    run(server, body)
    assert [json.loads(each)["type"] if isinstance(each, str) else each for each in heard] == [
        "first",
        FRAME,
        "second",
        "call.end",
    ]
    assert json.loads(heard[-1])["reason"] == "test is over"


def test_a_backend_that_reads_nothing_costs_a_second_of_audio_and_no_more() -> None:
    async def server(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.wait_closed()

    async def body(backend: Backend, _call: Call, dropped: Counter[str]) -> None:
        # More than the kernel's buffers and the library's hold; a while for the writer each time.
        for _ in range(40):
            for _ in range(500):
                backend.audio(FRAME)
            await asyncio.sleep(0)
        assert dropped["audio_up"] > 1000
        assert backend._frames <= 50
        told = [backend.tell({"type": "event"}) for _ in range(400)]
        assert told.count(False) >= 100
        assert dropped["events_up"] == told.count(False)

    run(server, body)


def test_what_a_backend_sends_is_played_or_refused() -> None:
    answers: list[dict[str, Any]] = []

    async def server(socket: ServerConnection) -> None:
        await socket.send(FRAME + FRAME)
        for message in ("no json", "[]", '{"type": 5}', "[" * 100_000, '{"type": "bad"}', '{"type": "good"}'):
            await socket.send(message)
        await socket.send(b"odd")
        async for answer in socket:
            answers.append(json.loads(answer))
            if len(answers) == 6:
                return

    async def body(backend: Backend, call: Call, dropped: Counter[str]) -> None:
        await call.gone.wait()
        assert [event["type"] for event in call.events] == ["bad", "good"]
        assert dropped["refused"] == 6
        assert backend.play.frame() == FRAME

    run(server, body)
    assert {answer["type"] for answer in answers} == {"error"}
    assert "not wanted" in [answer["message"] for answer in answers]


def test_a_backend_that_is_not_there_is_told() -> None:
    async def whole() -> None:
        async with asyncio.timeout(20), serve(lambda _socket: asyncio.sleep(0), "127.0.0.1", 0) as served:
            port = served.sockets[0].getsockname()[1]
        with pytest.raises(BackendError, match="cannot be reached"):
            await Backend.reach(f"ws://127.0.0.1:{port}/", Counter())

    asyncio.run(whole())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class _Nobody:
    def event(self, event: dict[str, Any]) -> str | None:
        try:
            content(event, 100)
        except ValueError as error:
            return str(error)
        return None

    def backend_gone(self, reason: str) -> None:
        raise AssertionError(reason)


@given(
    st.one_of(
        _JSON,
        st.fixed_dictionaries({"type": st.sampled_from(["data.send", "x"]), "text": _JSON}),
        st.fixed_dictionaries({"type": st.just("data.send"), "base64": _JSON}),
    )
)
def test_any_event_is_taken_or_refused(value: Any) -> None:
    said = _act(json.dumps(value), _Nobody())
    assert said is None or said
