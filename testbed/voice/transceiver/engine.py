"""The process of a transceiver that has the calls. Another one signals for it, and starts it anew when it dies.

``python -m testbed.voice.transceiver.engine CONTROL UDP``: two inherited descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from typing import Any, Final

from aiortc import RTCCertificate

from testbed.errors import BedError
from testbed.kernel import die_with_parent, many_descriptors
from testbed.voice.keys import Keys
from testbed.voice.media.pace import Clock
from testbed.voice.media.streams import Logging
from testbed.voice.rtplog import RtpLog
from testbed.voice.transceiver import credentials, offers
from testbed.voice.transceiver.backend import Backend, BackendError
from testbed.voice.transceiver.call import Call, Place
from testbed.voice.transceiver.figures import Figures
from testbed.voice.transceiver.mux import Mux
from testbed.voice.transceiver.options import Task
from testbed.voice.transceiver.wire import Wire

_SWEEP_S: Final = 0.5
#: How long telling all clients may take when the other process is gone; then the kernel ends this one.
_LAST_WORDS_S: Final = 3
#: Rows of a log, by what there is of each: an hour of one call, or a minute of sixty.
_LOG_PACKETS: Final = 1 << 20
_BAD_REQUEST, _UNAVAILABLE = 400, 503


class Engine:
    """All calls of a transceiver."""

    def __init__(self, wire: Wire, sock: socket.socket, task: Task, keys: Keys) -> None:
        self._wire, self._task = wire, task
        self.figures = Figures()
        self._mux = Mux(sock, keys, task.cluster, task.transceiver, self.figures)
        self._place = Place(
            self._mux,
            RTCCertificate.generateCertificate(),
            Clock(),
            self.figures,
            task.limits.setup_s,
            task.limits.consent_s,
        )
        self._log = RtpLog(task.log, packets=_LOG_PACKETS, frames=_LOG_PACKETS) if task.log else None
        self._calls: dict[str, Call] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._number = 0
        asyncio.get_running_loop().add_reader(sock, self._mux.read)

    async def run(self) -> None:
        """Do what is said until the other process stops this one, or is gone."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            while (message := await self._wire.hear()) is not None:
                if not self._act(message):
                    break
        finally:
            sweeping.cancel()
            await self._end_all()

    def _act(self, message: dict[str, Any]) -> bool:
        """Do what is said; False: stop."""
        what = message["do"]
        if what == "open":
            task = asyncio.create_task(self._open(message["re"], message["call"], message["offer"]))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        elif what == "end":
            call = self._calls.get(message["call"])
            if call is not None:
                call.end(message["reason"])
        elif what == "keys":
            self._mux.keys = Keys.from_json(message["keys"], "supervisor", relay=False)
        elif what == "figures":
            self._wire.say({"re": message["re"], "figures": {**self.figures.to_json(), "now": self._now()}})
        return bool(what != "stop")

    async def _open(self, reply: int, name: str, text: str) -> None:
        try:
            offer = offers.read(text)
            backend = await Backend.reach(self._task.backend, self.figures.backend_dropped)
        except offers.OfferError as error:
            self._wire.say({"re": reply, "refused": _BAD_REQUEST, "why": str(error)})
            return
        except BackendError as error:
            self._wire.say({"re": reply, "refused": _UNAVAILABLE, "why": str(error)})
            return
        mine = credentials.make(self._mux.keys, self._task.cluster, self._task.transceiver)
        self._number += 1
        logging = Logging(self._log, self._number) if self._log else None
        call = Call(name, offer, mine, backend, self._place, self._told, logging)
        self._calls[name] = call
        call.start()
        answer = offers.answer(
            offer,
            mine,
            self._place.certificate.getFingerprints()[:1],
            self._task.relays,
            call.outgoing.ssrc if call.outgoing else 0,
            name[:16],
        )
        self._wire.say({"re": reply, "answer": answer})

    def _told(self, name: str, state: str, reason: str) -> None:
        if state == "ended":
            self._calls.pop(name, None)
        self._wire.say({"call": name, "state": state, "reason": reason})

    def _now(self) -> dict[str, float]:
        states = [call.state for call in self._calls.values()]
        lags = [call.incoming.lag_ticks for call in self._calls.values() if call.incoming.reception]
        return {
            "new": states.count("new"),
            "connected": states.count("connected"),
            "playout_lag_s": max(lags, default=0) / 48000,
        }

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = time.monotonic()
            for call in list(self._calls.values()):
                call.sweep(now)

    async def _end_all(self) -> None:
        for opening in list(self._opening):
            opening.cancel()
        calls = list(self._calls.values())
        for call in calls:
            call.end("the transceiver was stopped")
        await asyncio.gather(*(call.ended() for call in calls), return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await self._wire.flush()
        self._wire.close()
        if self._log:
            self._log.close()


async def _serve(control: socket.socket, udp: socket.socket) -> None:
    asyncio.get_running_loop().set_exception_handler(_unhandled)
    wire = await Wire.over(control)
    first = await wire.hear()
    if first is None:
        return
    keys = Keys.from_json(first["keys"], "supervisor", relay=False)
    engine = Engine(wire, udp, Task.from_json(first["task"]), keys)
    # What is there now is there for good: a look through all of it would hold calls up.
    gc.collect()
    gc.freeze()
    wire.say({"state": "ready"})
    await engine.run()


def _unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a client's data made a library raise, in a task of that call; the call ends by itself."""
    error = context.get("exception")
    print(f"in a call: {context['message']}: {error!r}"[:300], file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    """Serve until told to stop, or until the other process is gone: then clients are told, while there is time."""
    signal.signal(signal.SIGUSR1, lambda *_: signal.alarm(_LAST_WORDS_S))
    die_with_parent(os.getppid(), by=signal.SIGUSR1)
    # One a call, to its backend.
    many_descriptors()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A key on the terminal reaches the whole group; the other process decides what it means.
        signal.signal(number, signal.SIG_IGN)
    for name in ("aiortc", "aioice", "websockets"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    control, udp = (socket.socket(fileno=int(each)) for each in sys.argv[1:3])
    try:
        asyncio.run(_serve(control, udp))
    except BedError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201
        sys.exit(int(error.exit_code))


if __name__ == "__main__":
    main()
