"""A call's clock: every 20 ms, in the mean exactly, on a machine that is sometimes late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from testbed.voice.media.opus import FRAME_MS

FRAME_S: Final = FRAME_MS / 1000
#: A pace that is farther behind than this goes on from now: nobody wants to hear a burst.
_MOST_BEHIND_S: Final = 0.2


async def pace(tick: Callable[[], None], skip: Callable[[int], None]) -> None:
    """Call ``tick`` every 20 ms until cancelled; ``skip`` is told how many ticks were left out."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due += FRAME_S
        behind = loop.time() - due
        if behind > _MOST_BEHIND_S:
            frames = int(behind / FRAME_S)
            due += frames * FRAME_S
            skip(frames)
        await asyncio.sleep(max(0.0, due - loop.time()))
        tick()
