"""One call: ICE's verdicts, DTLS, SRTP, RTCP, the data channels, and what passes to and from the backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pylibsrtp
from aiortc import RTCCertificate, RTCDtlsTransport, RTCSctpCapabilities, RTCSctpTransport

from testbed.voice import stun
from testbed.voice.media import rtcp
from testbed.voice.media.opus import FRAME_BYTES, FRAME_MS, RATE
from testbed.voice.media.pace import Clock
from testbed.voice.media.packets import RtpError, is_rtcp
from testbed.voice.media.streams import Incoming, Logging, Outgoing
from testbed.voice.rtplog import End, Step
from testbed.voice.transceiver.backend import Backend
from testbed.voice.transceiver.channels import Channels
from testbed.voice.transceiver.figures import Figures
from testbed.voice.transceiver.ice import Credentials
from testbed.voice.transceiver.mux import Mux, Way
from testbed.voice.transceiver.offers import MOST_MESSAGE, Offer
from testbed.voice.transceiver.transport import SharedTransport

_SILENCE: Final = bytes(FRAME_BYTES)
_ENDS: Final = {
    "deleted": End.TOLD,
    "closed by the client": End.TOLD,
    "consent expired": End.SILENT,
    "set-up took too long": End.FAILED,
    "DTLS failed": End.FAILED,
    "it failed": End.FAILED,
}


@dataclass(frozen=True)
class Place:
    """What all calls of a transceiver share."""

    mux: Mux
    certificate: RTCCertificate
    clock: Clock
    figures: Figures
    setup_s: float
    consent_s: float


class Call:
    """See the module; it begins with :meth:`start` and is over when ``ended`` was called."""

    def __init__(
        self,
        name: str,
        offer: Offer,
        credentials: Credentials,
        backend: Backend,
        place: Place,
        told: Callable[[str, str, str], None],
        logging: Logging | None,
    ) -> None:
        """``told``: takes the call's name, its state, and the reason where it has ended."""
        self.name, self.offer, self._credentials = name, offer, credentials
        self._backend, self._place, self._told, self._logging = backend, place, told, logging
        self.state = "new"
        self._began_s = self._consent_s = time.monotonic()
        self._way: Way | None = None
        self._reached, self._speaking = asyncio.Event(), asyncio.Event()
        self._transport = SharedTransport(self._send)
        self._dtls = RTCDtlsTransport(self._transport, [place.certificate])  # type: ignore[arg-type]
        self._dtls._set_role("server")  # noqa: SLF001 - aiortc at the version that is pinned
        self._dtls.on("statechange", self._dtls_changed)
        self._sctp: RTCSctpTransport | None = None
        self._channels = Channels(
            backend,
            offer.most_message or MOST_MESSAGE,
            place.figures.backend_dropped,
            lambda: self.end("the backend does not keep up"),
        )
        payload_type = offer.opus or 0
        self.incoming = Incoming(payload_type, logging)
        self.outgoing = Outgoing(payload_type, logging) if offer.opus is not None else None
        self._reports = rtcp.Reports(self.incoming, self.outgoing, name[:16]) if self.outgoing else None
        self._run: asyncio.Task[None] | None = None
        self._unpace: Callable[[], None] = lambda: None
        self._ending: asyncio.Task[None] | None = None

    @property
    def credentials(self) -> Credentials:
        """Of its answer."""
        return self._credentials

    def start(self) -> None:
        """Wait for the client's first check from now on."""
        self._place.mux.add(self)
        self._place.figures.calls["opened"] += 1
        self._backend.start(self)
        audio = {"encoding": "pcm_s16le", "rate": RATE, "channels": 1, "frame_ms": FRAME_MS}
        self._backend.tell(
            {
                "type": "call.start",
                "call": self.name,
                "audio": audio if self.offer.opus is not None else None,
                "data": self.offer.sctp_port is not None,
            }
        )
        self._step(Step.ANSWERED)
        self._run = asyncio.create_task(self._live())

    def end(self, reason: str) -> None:
        """End it; the client is told by BYE and by DTLS, the backend by an event. Only the first reason counts."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(reason))

    async def ended(self) -> None:
        """Wait until it is over."""
        if self._ending is not None:
            await self._ending

    def sweep(self, now_s: float) -> None:
        """End it where its time is over; asked now and then."""
        if self.state == "new" and now_s - self._began_s > self._place.setup_s:
            self.end("set-up took too long")
        elif self.state == "connected" and now_s - self._consent_s > self._place.consent_s:
            self.end("consent expired")

    # What the mux calls.

    def checked(self, way: Way) -> None:
        """RFC 7675: consent is fresh."""
        self._consent_s = time.monotonic()
        if self._way is None:
            self._way = way

    def moved(self, way: Way) -> None:
        """Datagrams go there from now on."""
        if self._reached.is_set():
            self._place.figures.moves += 1
        else:
            self._step(Step.CHECKED)
        self._way = way
        self._reached.set()

    def datagram(self, data: bytes, t_ns: int) -> None:
        """DTLS to aiortc, RTP and RTCP here."""
        dropped = self._place.figures.dropped
        if stun.KINDS[data[0]] == stun.Kind.DTLS:
            if not self._transport.put(data):
                dropped["dtls_flood"] += 1
            return
        session = self._dtls._rx_srtp  # noqa: SLF001 - as above
        if session is None or self._reports is None:
            dropped["too_early"] += 1
            return
        try:
            if is_rtcp(data):
                self._reports.read(session.unprotect_rtcp(data))
                return
            first = self.incoming.put(session.unprotect(data), t_ns)
        except (pylibsrtp.Error, RtpError):
            dropped["srtp"] += 1
            return
        if first:
            self._speaking.set()
            self._step(Step.MEDIA)

    # What the backend calls.

    def event(self, event: dict[str, Any]) -> str | None:
        """Act on an event of the backend's; what is wrong with it, or None."""
        kind = event["type"]
        if kind == "audio.clear":
            self._backend.play.clear()
        elif kind == "data.send":
            return self._channels.send(event)
        elif kind == "call.end":
            self.end("ended by the backend")
        else:
            return f"no such event: {kind[:40]}"
        return None

    def backend_gone(self, reason: str) -> None:
        """Without a backend there is no call."""
        self.end(reason)

    # Its life.

    async def _live(self) -> None:
        try:
            await self._set_up()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A library did not like what the client sent, or the testbed has a bug: this call is over, no other."""
        asyncio.get_running_loop().call_exception_handler({"message": f"call {self.name}", "exception": error})
        self.end("it failed")

    async def _set_up(self) -> None:
        await self._reached.wait()
        await self._dtls.start(self.offer.dtls)
        if self._dtls.state != "connected":
            self.end("DTLS failed")
            return
        self.state = "connected"
        self._place.figures.calls["connected"] += 1
        self._told(self.name, "connected", "")
        self._step(Step.SECURED)
        self._backend.tell({"type": "call.connected"})
        if self.offer.sctp_port is not None:
            self._sctp = RTCSctpTransport(self._dtls)
            self._sctp.on("datachannel", self._channels.opened)
            await self._sctp.start(RTCSctpCapabilities(self.offer.most_message), self.offer.sctp_port)
        if self.outgoing is not None:
            if not self.offer.direction.startswith("send"):
                # A thousand that say nothing need no clock.
                await self._speaking.wait()
            self._unpace = self._place.clock.add(self._tick, self.outgoing.skip, self._failed)

    def _tick(self) -> None:
        assert self.outgoing is not None
        assert self._reports is not None
        if self.incoming.reception is not None:
            self._backend.audio(self.incoming.take(time.monotonic_ns()))
        session = self._dtls._tx_srtp  # noqa: SLF001 - as above
        if self.offer.direction.startswith("send"):
            self._send(session.protect(self.outgoing.packet(self._backend.play.frame() or _SILENCE)))
        report = self._reports.due()
        if report is not None:
            self._send(session.protect_rtcp(report))

    def _send(self, data: bytes) -> None:
        if self._way is not None:
            self._place.mux.send(self._way, data)

    def _dtls_changed(self) -> None:
        if self.state == "connected" and self._dtls.state in ("closed", "failed"):
            self.end("closed by the client")

    async def _end(self, reason: str) -> None:
        figures, was = self._place.figures, self.state
        self.state = "ended"
        figures.calls[reason.replace(" ", "_").replace("-", "_").lower()] += 1
        self._unpace()
        if self._run is not None:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)
        if was == "connected" and self._reports is not None:
            self._send(self._dtls._tx_srtp.protect_rtcp(self._reports.goodbye()))  # noqa: SLF001 - as above
        if self._sctp is not None:
            await self._sctp.stop()
        await self._dtls.stop()
        self._transport.close()
        self._place.mux.remove(self)
        tally = self.incoming.tally
        for name in type(tally).__slots__:
            figures.audio[name] += getattr(tally, name)
        self._step(Step.ENDED, int(_ENDS.get(reason, End.HERE)))
        self._told(self.name, "ended", reason)
        await self._backend.close(reason)

    def _step(self, step: Step, value: int = 0) -> None:
        if self._logging:
            self._logging.step(step, ssrc=self.outgoing.ssrc if self.outgoing else 0, value=value)
