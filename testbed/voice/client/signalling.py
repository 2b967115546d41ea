"""A client's side of signalling: its offer posted, and the end of its call asked for."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urljoin

import aiohttp

from testbed.errors import InfrastructureError

_POST: Final = aiohttp.ClientTimeout(15)
_DELETE: Final = aiohttp.ClientTimeout(2)
_WAIT_S: Final = 20
_WAITING: Final = aiohttp.ClientTimeout(_WAIT_S + 10)
#: Until it is asked again where nobody answers.
_AGAIN_S: Final = 1.0
_OK, _NOT_FOUND = 200, 404
_MOST_ERROR: Final = 300


async def post(http: aiohttp.ClientSession, url: str, offer: str) -> tuple[str, str]:
    """The answer to an offer, and the call's URL. Raises InfrastructureError, and what aiohttp raises."""
    headers = {"Content-Type": "application/sdp"}
    async with http.post(url, data=offer.encode(), headers=headers, timeout=_POST) as response:
        text = await response.text()
        if response.status != 201:
            found = f"HTTP {response.status}: {text[:_MOST_ERROR]}"
            raise InfrastructureError("the transceiver refuses the offer", where=url, found=found)
        return text, urljoin(url, response.headers["Location"])


async def ended(http: aiohttp.ClientSession, call: str) -> str:
    """Wait until the transceiver says that a call is over, and why.

    Where nobody signals, somebody may again: who does not know the call then says so, and it is over.
    """
    while True:
        try:
            async with http.get(f"{call}?wait={_WAIT_S}", timeout=_WAITING) as response:
                if response.status == _NOT_FOUND:
                    return "the transceiver knows nothing of it"
                said = await response.json() if response.status == _OK else {}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            said = {}
        if said.get("state") == "ended":
            return str(said.get("reason"))
        if not said:
            await asyncio.sleep(_AGAIN_S)


async def delete(http: aiohttp.ClientSession, call: str) -> None:
    """End a call. Raises what aiohttp raises."""
    await http.delete(call, timeout=_DELETE)
