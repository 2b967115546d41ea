"""HTTP for clients: an offer is posted, the answer comes back, and the call has a name to ask for and to end it by.

In the manner of WHIP (RFC 9725): ``POST /calls`` with ``application/sdp``, 201 with the answer and ``Location``.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from aiohttp import web

from testbed.voice.transceiver.calls import Known
from testbed.voice.transceiver.offers import MOST_BYTES

_BODY_S: Final = 5.0
_MOST_WAIT_S: Final = 30.0
_RETRY_S: Final = 2
_TYPE: Final = "application/sdp"


class RefusedError(Exception):
    """There is no call; why, and the HTTP status that says so."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Transceives(Protocol):
    """What signals are for."""

    async def open(self, offer: str, source: str) -> tuple[Known, str]:
        """A call, and the answer. Raises RefusedError."""

    def find(self, name: str) -> Known | None:
        """A call, also one that ended lately."""

    def end(self, known: Known) -> None:
        """End it."""

    @property
    def health(self) -> str:
        """How it is: running, restarting or draining."""

    async def metrics(self) -> bytes:
        """For Prometheus."""


def application(transceiver: Transceives, origins: tuple[str, ...]) -> web.Application:
    """The routes for clients."""
    handlers = _Handlers(transceiver)
    made = web.Application(client_max_size=MOST_BYTES, middlewares=[_origins(origins), _errors])
    made.router.add_post("/calls", handlers.post)
    made.router.add_get("/calls/{name}", handlers.get)
    made.router.add_delete("/calls/{name}", handlers.delete)
    made.router.add_get("/health", handlers.health)
    for path in ("/calls", "/calls/{name}"):
        made.router.add_route("OPTIONS", path, handlers.options)
    return made


def metrics_application(transceiver: Transceives, content_type: str) -> web.Application:
    """The route for Prometheus."""

    async def scrape(_request: web.Request) -> web.Response:
        return web.Response(body=await transceiver.metrics(), headers={"Content-Type": content_type})

    made = web.Application()
    made.router.add_get("/metrics", scrape)
    return made


class _Handlers:
    def __init__(self, transceiver: Transceives) -> None:
        self._transceiver = transceiver

    async def post(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != _TYPE:
            raise RefusedError(415, f"an offer is {_TYPE}")
        try:
            async with asyncio.timeout(_BODY_S):
                body = await request.read()
        except TimeoutError:
            raise RefusedError(408, f"the offer did not come within {_BODY_S:g} s") from None
        try:
            offer = body.decode()
        except UnicodeDecodeError:
            raise RefusedError(400, "the offer is not UTF-8") from None
        known, answer = await self._transceiver.open(offer, request.remote or "")
        location = f"/calls/{known.name}"
        return web.Response(status=201, text=answer, content_type=_TYPE, headers={"Location": location})

    async def get(self, request: web.Request) -> web.StreamResponse:
        known = self._known(request)
        wait = request.query.get("wait")
        if wait is not None and known.state != "ended":
            try:
                seconds = float(wait)
            except ValueError:
                seconds = math.nan
            if not 0 <= seconds <= _MOST_WAIT_S:
                raise RefusedError(400, f"wait is 0 to {_MOST_WAIT_S:g} seconds")
            try:
                async with asyncio.timeout(seconds):
                    await known.over.wait()
            except TimeoutError:
                pass
        return _said(known)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        known = self._known(request)
        self._transceiver.end(known)
        return _said(known)

    async def health(self, _request: web.Request) -> web.StreamResponse:
        health = self._transceiver.health
        return _json({"state": health}, 200 if health == "running" else 503)

    async def options(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    def _known(self, request: web.Request) -> Known:
        known = self._transceiver.find(request.match_info["name"])
        if known is None or known.state == "opening":
            raise RefusedError(404, "there is no such call")
        return known


def _said(known: Known) -> web.Response:
    return _json({"state": known.state, "reason": known.reason or None})


def _json(value: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, text=json.dumps(value), content_type="application/json")


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every refusal is JSON with a sentence."""
    try:
        return await handler(request)
    except RefusedError as refused:
        answer = _json({"error": refused.why}, refused.status)
        if refused.status == 503:
            answer.headers["Retry-After"] = str(_RETRY_S)
        return answer
    except web.HTTPRequestEntityTooLarge:
        return _json({"error": f"an offer has at most {MOST_BYTES:,} bytes"}, 413)
    except web.HTTPException as error:
        return _json({"error": error.reason}, error.status)


def _origins(allowed: tuple[str, ...]) -> Any:
    """Let pages of these origins signal (CORS), and tell browsers so; all others they keep away."""

    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        response = await handler(request)
        origin = request.headers.get("Origin")
        if origin is not None and (origin in allowed or "*" in allowed):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Methods"] = "POST, GET, DELETE"
            response.headers["Access-Control-Allow-Headers"] = "Content-Type"
            response.headers["Access-Control-Expose-Headers"] = "Location"
            response.headers["Vary"] = "Origin"
        return response

    return middleware
