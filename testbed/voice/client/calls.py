"""Several calls at once, from one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp

from testbed.errors import BedError
from testbed.voice.client.caller import Caller, Plan
from testbed.voice.media.pace import Clock
from testbed.voice.media.streams import Logging


async def call(
    plan: Plan,
    calls: int,
    seconds: float,
    logs: Callable[[int], Logging | None],
    ready: Callable[[int], None],
    stop: asyncio.Event,
) -> list[dict[str, Any]]:
    """Make calls, hold them for a time or until ``stop``, and tell how each was.

    Args:
        plan: what each is.
        calls: how many at once.
        seconds: from when all are set up or have failed.
        logs: where rows of each go, by its number.
        ready: told how many are set up, when it is clear of all.
        stop: ends them before.
    """
    clock = Clock()
    callers = [Caller(plan, number, logs(number), clock) for number in range(calls)]
    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(_connect(caller, http) for caller in callers))
        live = [caller for caller in callers if not caller.over.is_set()]
        ready(len(live))
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait()), asyncio.create_task(_all(live))]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await asyncio.gather(*(caller.close(http) for caller in callers))
    return [caller.summary() for caller in callers]


async def _connect(caller: Caller, http: aiohttp.ClientSession) -> None:
    try:
        await caller.connect(http)
    except BedError as error:
        caller.error = str(error)


async def _all(callers: list[Caller]) -> None:
    for caller in callers:
        await caller.over.wait()
