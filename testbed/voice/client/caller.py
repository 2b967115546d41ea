"""One call from a client's side: aiortc for ICE, DTLS, SRTP and SCTP; RTP and its playout are as the transceiver's.

So each packet is seen when it comes, and what is heard is what a small jitter buffer makes of it, not aiortc's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiortc import RTCPeerConnection, RTCSessionDescription

from testbed.errors import InfrastructureError
from testbed.voice.client import signalling
from testbed.voice.client.signal import Ear, Signal
from testbed.voice.media.pace import Clock
from testbed.voice.media.packets import RtpError
from testbed.voice.media.rtcp import Reports
from testbed.voice.media.streams import Incoming, Logging, Outgoing
from testbed.voice.rtplog import End, Step

_MESSAGE_EVERY: Final = 10
_OPUS: Final = re.compile(r"^a=rtpmap:(\d+) opus/48000/2\r?$", re.MULTILINE)
_END_WORDS: Final = {End.HERE: "here", End.TOLD: "told", End.SILENT: "silent", End.FAILED: "failed"}


@dataclass(frozen=True)
class Plan:
    """What call to make.

    Attributes:
        url: of the transceiver's `calls`.
        setup_s: how long setting up may take.
        data: whether messages are sent too.
    """

    url: str
    setup_s: float = 20.0
    data: bool = True


class Caller:
    """One call. :meth:`connect`, then :meth:`close`; :meth:`summary` at any time."""

    def __init__(self, plan: Plan, number: int, logging: Logging | None, clock: Clock) -> None:
        self._plan, self._number, self._logging, self._clock = plan, number, logging, clock
        self.signal, self.ear = Signal(seed=number + 1), Ear()
        self._connection = RTCPeerConnection()
        self._steps: dict[str, float] = {}
        self._location = ""
        self._incoming: Incoming | None = None
        self._outgoing: Outgoing | None = None
        self._reports: Reports | None = None
        self._dtls: Any = None
        self._channel: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._unpace: Callable[[], None] = lambda: None
        self.reason = ""
        self._messages: dict[str, float] = {}
        self._round_trips: list[float] = []
        self._unexpected_messages = 0
        self._sent = 0
        self.error = ""
        self.end: End | None = None
        self.over = asyncio.Event()

    async def connect(self, http: aiohttp.ClientSession) -> None:
        """Set the call up and begin to send. Raises InfrastructureError."""
        connection = self._connection
        transceiver = connection.addTransceiver("audio", direction="sendrecv")
        # What aiortc would do with RTP is done here.
        for end, name in ((transceiver.sender, "send"), (transceiver.receiver, "receive")):
            setattr(end, name, _nothing)
        if self._plan.data:
            self._channel = connection.createDataChannel("events")
            self._channel.on("message", self._message)
        connected = asyncio.Event()
        connection.on("connectionstatechange", lambda: self._changed(connected))
        connection.on("iceconnectionstatechange", self._ice_changed)
        try:
            async with asyncio.timeout(self._plan.setup_s):
                await connection.setLocalDescription(await connection.createOffer())
                self._step(Step.BEGUN)
                answer, self._location = await signalling.post(http, self._plan.url, connection.localDescription.sdp)
                self._step(Step.ANSWERED)
                payload_type = _OPUS.search(answer)
                if payload_type is None:
                    raise InfrastructureError("the answer has no Opus", where=self._plan.url)
                self._incoming = Incoming(int(payload_type[1]), self._logging)
                ssrc = transceiver.sender._ssrc  # noqa: SLF001 - aiortc at the version that is pinned
                self._outgoing = Outgoing(int(payload_type[1]), self._logging, ssrc)
                self._reports = Reports(self._incoming, self._outgoing, f"caller-{self._number}")
                self._dtls = transceiver.sender.transport
                self._dtls._handle_rtp_data = self._rtp  # noqa: SLF001
                self._dtls._handle_rtcp_data = self._rtcp  # noqa: SLF001
                self._dtls.on("statechange", self._dtls_changed)
                await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
                await connected.wait()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._ended(End.FAILED)
            raise InfrastructureError(
                "the call does not come about", where=self._plan.url, found=f"{type(error).__name__}: {error}"[:200]
            ) from None
        if self.over.is_set():
            raise InfrastructureError("the call ended before it had begun", where=self._plan.url)
        self._unpace = self._clock.add(self._tick, self._outgoing.skip, self._failed)
        self._tasks = [asyncio.create_task(self._watch(http))]

    async def close(self, http: aiohttp.ClientSession) -> None:
        """End it, and have the transceiver know."""
        self._unpace()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self.over.is_set():
            self._ended(End.HERE)
            if self._reports is not None and self._dtls.state == "connected":
                with contextlib.suppress(ConnectionError):
                    await self._dtls._send_rtp(self._reports.goodbye())  # noqa: SLF001
        await self._connection.close()
        if self._location:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                await signalling.delete(http, self._location)

    def summary(self) -> dict[str, Any]:
        """All there is to tell; null is not known."""
        likeness = self.ear.likeness(self.signal)
        incoming, outgoing = self._incoming, self._outgoing
        reception = incoming.reception if incoming else None
        trips = sorted(self._round_trips)
        return {
            "call": self._number,
            "ended": _END_WORDS[self.end] if self.end is not None else None,
            "error": self.error or None,
            "reason": self.reason or None,
            "set_up_s": {name: round(at, 4) for name, at in self._steps.items()},
            "sent": outgoing.packets if outgoing else 0,
            "received": reception.received if reception else 0,
            "expected": reception.expected if reception else None,
            "jitter_ms": reception.jitter / 48 if reception else None,
            "frames": {name: getattr(incoming.tally, name) for name in type(incoming.tally).__slots__}
            if incoming
            else None,
            "compared": likeness.compared,
            "matched": likeness.matched if likeness.compared else None,
            "delay_ms": likeness.delay_ms if likeness.compared else None,
            "longest_quiet_ms": likeness.longest_quiet_ms,
            "tone_440_hz": self.ear.share(440.0),
            "messages_sent": self._sent,
            "messages_returned": len(trips),
            "messages_unexpected": self._unexpected_messages,
            "message_round_trip_ms": trips[len(trips) // 2] * 1000 if trips else None,
            "rtcp_round_trip_ms": self._reports.round_trip_s * 1000
            if self._reports and self._reports.round_trip_s is not None
            else None,
        }

    async def _watch(self, http: aiohttp.ClientSession) -> None:
        """Have the transceiver say when the call is over: its engine may die, and then sends nothing any more."""
        self.reason = await signalling.ended(http, self._location)
        self._ended(End.TOLD)

    def _tick(self) -> None:
        assert self._incoming is not None
        assert self._outgoing is not None
        assert self._reports is not None
        now = time.monotonic_ns()
        if self._incoming.reception is not None:
            self.ear.hear(self._incoming.take(now), self.signal.frames)
        _soon(self._send(self._outgoing.packet(self.signal.frame())))
        report = self._reports.due()
        if report is not None:
            _soon(self._send(report))
        if self.signal.frames % _MESSAGE_EVERY == 0 and self._channel and self._channel.readyState == "open":
            text = f"{self._number}-{self._sent}"
            self._messages[text] = time.monotonic()
            self._sent += 1
            self._channel.send(text)

    async def _send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._dtls._send_rtp(data)  # noqa: SLF001

    async def _rtp(self, data: bytes, arrival_time_ms: int) -> None:  # noqa: ARG002 - aiortc's signature
        assert self._incoming is not None
        with contextlib.suppress(RtpError):
            if self._incoming.put(data, time.monotonic_ns()):
                self._step(Step.MEDIA)

    async def _rtcp(self, data: bytes) -> None:
        if self._reports is not None:
            self._reports.read(data)

    def _message(self, text: str | bytes) -> None:
        began = self._messages.pop(text, None) if isinstance(text, str) else None
        if began is None:
            self._unexpected_messages += 1
        else:
            self._round_trips.append(time.monotonic() - began)

    def _ice_changed(self) -> None:
        if self._connection.iceConnectionState == "completed":
            self._step(Step.CHECKED)

    def _dtls_changed(self) -> None:
        # Where the other side closed DTLS, ICE is as it was; where consent is gone, ICE went first.
        if self._dtls.state == "closed" and self._dtls.transport.state == "completed":
            self._ended(End.TOLD)

    def _changed(self, connected: asyncio.Event) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self._step(Step.SECURED)
            connected.set()
        elif state in ("failed", "closed"):
            silent = self._connection.iceConnectionState in ("failed", "closed")
            self._ended(End.SILENT if silent else End.FAILED)
            connected.set()

    def _failed(self, error: Exception) -> None:
        self.error = repr(error)[:200]
        self._ended(End.FAILED)

    def _ended(self, end: End) -> None:
        if self.end is None:
            self.end = end
            self._step(Step.ENDED, int(end))
            self.over.set()

    def _step(self, step: Step, value: int = 0) -> None:
        now = time.monotonic()
        if step is Step.BEGUN:
            self._began_s = now
        self._steps.setdefault(step.name.lower(), now - getattr(self, "_began_s", now))
        if self._logging:
            self._logging.step(step, ssrc=self._outgoing.ssrc if self._outgoing else 0, value=value)


async def _nothing(_parameters: Any) -> None:
    """In the place of what aiortc would start."""


_tasks: set[asyncio.Task[None]] = set()


def _soon(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
