"""The process of a transceiver that signals: it owns the sockets, knows the calls, and sees to it that the engine runs.

When the engine dies its calls are over; this process says so by HTTP, and the next engine revokes their consent (STUN
403). When this process dies, the engine tells all clients and ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from testbed.errors import BedError, InfrastructureError
from testbed.kernel import many_descriptors
from testbed.voice.keys import Keys
from testbed.voice.sockets import address_of, bound
from testbed.voice.transceiver.calls import Calls, Known
from testbed.voice.transceiver.metrics import exposition
from testbed.voice.transceiver.options import Options, Task
from testbed.voice.transceiver.signalling import RefusedError, application, metrics_application
from testbed.voice.transceiver.wire import Wire

_BUFFER_BYTES: Final = 8 << 20
_OPEN_S: Final = 10.0
_FIGURES_S: Final = 2.0
_START_S: Final = 30.0
_STOP_S: Final = 5.0
_LOOK_S: Final = 1.0
#: An engine that lived less than this is started again only after a pause, which doubles.
_SHORT_LIFE_S: Final = 2.0
_PAUSES_S: Final = (0.05, 2.0)
_INTERRUPTED: Final = 128 + signal.SIGINT


class Supervisor:
    """One transceiver, from its sockets to its end."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        """Bind and read the keys. ``tell``: takes a line for whoever runs it. Raises UsageError."""
        self._options, self._tell = options, tell
        many_descriptors()
        self._keys = Keys.load(options.keys, relay=False).for_transceiver()
        self._look = self._looked()
        self._udp = bound(options.listen, socket.SOCK_DGRAM, "--listen")
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._http = bound(options.http, socket.SOCK_STREAM, "--http")
        self._metrics = bound(options.metrics, socket.SOCK_STREAM, "--metrics") if options.metrics else None
        self._calls = Calls()
        self._wire: Wire | None = None
        self._engine: asyncio.subprocess.Process | None = None
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._starts = 0
        self._refused: Counter[int] = Counter()
        self._draining = False
        self._stop = asyncio.Event()
        self._code = 0

    # What HTTP is for.

    @property
    def health(self) -> str:
        """How it is."""
        if self._draining:
            return "draining"
        return "running" if self._wire is not None else "restarting"

    async def open(self, offer: str, source: str) -> tuple[Known, str]:
        """A call, and the answer. Raises RefusedError."""
        try:
            return await self._open(offer, source)
        except RefusedError as refused:
            self._refused[refused.status] += 1
            raise

    def find(self, name: str) -> Known | None:
        """A call, also one that ended lately."""
        return self._calls.get(name)

    def end(self, known: Known) -> None:
        """End it."""
        if self._wire is not None and known.state != "ended":
            self._wire.say({"do": "end", "call": known.name, "reason": "deleted"})
        self._calls.changed(known, "ended", "deleted")

    async def metrics(self) -> bytes:
        """For Prometheus."""
        figures = None
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_FIGURES_S):
                figures = (await self._ask({"do": "figures"}))["figures"]
        return exposition(figures, self._starts, self._refused)

    async def _open(self, offer: str, source: str) -> tuple[Known, str]:
        limits = self._options.limits
        if self._draining:
            raise RefusedError(503, "this transceiver takes no new calls")
        if self._calls.live >= limits.calls:
            raise RefusedError(503, f"{limits.calls:,} calls are all it takes")
        if self._calls.of(source) >= limits.per_source:
            raise RefusedError(429, f"{limits.per_source:,} calls are all that one address may have")
        known = self._calls.add(source)
        try:
            async with asyncio.timeout(_OPEN_S):
                reply = await self._ask({"do": "open", "call": known.name, "offer": offer})
        except (TimeoutError, ConnectionError):
            self._calls.drop(known)
            raise RefusedError(503, "the transceiver's engine is not there at the moment") from None
        except asyncio.CancelledError:
            self.end(known)
            raise
        if "refused" in reply:
            self._calls.drop(known)
            raise RefusedError(reply["refused"], reply["why"])
        if known.state == "ended":
            raise RefusedError(503, "the transceiver's engine has just gone")
        if known.state == "opening":
            self._calls.changed(known, "new")
        return known, reply["answer"]

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Ask the engine. Raises ConnectionError where there is none, or it dies meanwhile."""
        if self._wire is None:
            raise ConnectionError
        self._number += 1
        number = self._number
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        self._wire.say({**message, "re": number})
        try:
            return await reply
        finally:
            del self._replies[number]

    # Its life.

    async def run(self) -> int:
        """Transceive until a signal; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._signal, number)
        runners = [web.AppRunner(application(self, self._options.origins), access_log=None, handle_signals=False)]
        sockets = [self._http]
        if self._metrics is not None:
            runners.append(web.AppRunner(metrics_application(self, CONTENT_TYPE_LATEST), access_log=None))
            sockets.append(self._metrics)
        for runner, sock in zip(runners, sockets, strict=True):
            await runner.setup()
            await web.SockSite(runner, sock).start()
        keeping = asyncio.create_task(self._keep_engine())
        looking = asyncio.create_task(self._look_at_keys())
        try:
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if keeping.done():
                keeping.result()
        finally:
            looking.cancel()
            await self._stop_engine()
            keeping.cancel()
            await asyncio.gather(keeping, looking, return_exceptions=True)
            self._calls.lost("the transceiver was stopped")
            for runner in runners:
                await runner.cleanup()
            self._udp.close()
        return self._code

    @property
    def told(self) -> str:
        """Where it is, as one line."""
        parts = [f"signalling http://{address_of(self._http)}/calls", f"relays {address_of(self._udp)}"]
        if self._metrics is not None:
            parts.append(f"metrics {address_of(self._metrics)}")
        return f"transceiver {os.getpid()}: " + ", ".join(parts)

    async def _keep_engine(self) -> None:
        pause = 0.0
        while True:
            began = time.monotonic()
            code = await self._one_engine()
            short = time.monotonic() - began < _SHORT_LIFE_S
            if self._stop.is_set():
                return
            if not self._starts:
                raise InfrastructureError("the engine does not start", found=f"exit code {code}")
            over = self._calls.lost("the transceiver died")
            self._tell(f"the engine ended with {code}; {over:,} calls are over, and are told so; it starts again")
            pause = min(max(2 * pause, _PAUSES_S[0]), _PAUSES_S[1]) if short else 0.0
            await asyncio.sleep(pause)

    async def _one_engine(self) -> int:
        """Start an engine, and carry what it says until it ends; returns its exit code."""
        ours, theirs = socket.socketpair()
        with theirs:
            engine = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "testbed.voice.transceiver.engine",
                str(theirs.fileno()),
                str(self._udp.fileno()),
                pass_fds=(theirs.fileno(), self._udp.fileno()),
                stdin=subprocess.DEVNULL,
            )
        self._engine = engine
        wire = await Wire.over(ours)
        wire.say({"task": Task.of(self._options).to_json(), "keys": self._keys.to_json()})
        try:
            async with asyncio.timeout(_START_S):
                ready = await wire.hear()
            if ready is not None:
                self._wire = wire
                self._starts += 1
                if self._starts == 1:
                    self._tell(self.told)
                while (message := await wire.hear()) is not None:
                    self._heard(message)
        except TimeoutError:
            engine.kill()
        finally:
            self._wire = None
            for reply in self._replies.values():
                if not reply.done():
                    reply.set_exception(ConnectionError())
            wire.close()
        return await engine.wait()

    def _heard(self, message: dict[str, Any]) -> None:
        if "re" in message:
            reply = self._replies.get(message["re"])
            if reply is not None and not reply.done():
                reply.set_result(message)
            return
        known = self._calls.get(message["call"])
        if known is not None:
            self._calls.changed(known, message["state"], message["reason"])
        if self._draining and not self._calls.live:
            self._stop.set()

    async def _stop_engine(self) -> None:
        if self._wire is not None:
            self._wire.say({"do": "stop"})
        if self._engine is not None and self._engine.returncode is None:
            try:
                async with asyncio.timeout(_STOP_S if self._wire is not None else 0):
                    await self._engine.wait()
            except TimeoutError:
                self._engine.kill()
                await self._engine.wait()

    def _signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGINT:
            self._code = _INTERRUPTED
            self._stop.set()
        elif self._draining or not self._options.limits.drain_s or not self._calls.live:
            self._stop.set()
        else:
            self._draining = True
            self._tell(f"no new calls from now on; those there are go on for up to {self._options.limits.drain_s:g} s")
            asyncio.get_running_loop().call_later(self._options.limits.drain_s, self._stop.set)

    async def _look_at_keys(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._looked() != self._look:
                self._reload()

    def _reload(self) -> None:
        self._look = self._looked()
        try:
            self._keys = Keys.load(self._options.keys, relay=False).for_transceiver()
        except BedError as error:
            self._tell("the transceiver goes on as it was:\n" + str(error))
            return
        if self._wire is not None:
            self._wire.say({"do": "keys", "keys": self._keys.to_json()})
        self._tell("keys taken anew")

    def _looked(self) -> tuple[int, ...]:
        try:
            stat = self._options.keys.stat()
        except OSError:
            return ()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode
