"""The clock of calls: every 20 ms, in the mean exactly, on a machine that is sometimes late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from testbed.voice.media.opus import FRAME_MS

FRAME_S: Final = FRAME_MS / 1000
#: A pace that is farther behind than this goes on from now: nobody wants to hear a burst.
_MOST_BEHIND_S: Final = 0.2
_PHASES: Final = 4


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


@dataclass(eq=False, slots=True)
class _Paced:
    tick: Callable[[], None]
    skip: Callable[[int], None]
    failed: Callable[[Exception], None]


class Clock:
    """One for many calls. They share a few wakings, 5 ms apart: one for each call costs more than the call itself."""

    def __init__(self) -> None:
        self._phases: list[dict[_Paced, None]] = [{} for _ in range(_PHASES)]
        self._tasks: list[asyncio.Task[None] | None] = [None] * _PHASES

    def add(
        self, tick: Callable[[], None], skip: Callable[[int], None], failed: Callable[[Exception], None]
    ) -> Callable[[], None]:
        """Call ``tick`` and ``skip`` as :func:`pace` does, until what is returned is called.

        ``failed`` is told what a tick raised; after that there are no more of it.
        """
        number = min(range(_PHASES), key=lambda each: len(self._phases[each]))
        paced = _Paced(tick, skip, failed)
        self._phases[number][paced] = None
        if self._tasks[number] is None:
            self._tasks[number] = asyncio.create_task(self._run(number))

        def remove() -> None:
            self._phases[number].pop(paced, None)
            task = self._tasks[number]
            if not self._phases[number] and task is not None:
                self._tasks[number] = None
                task.cancel()

        return remove

    async def _run(self, number: int) -> None:
        phase = self._phases[number]
        await asyncio.sleep(number * FRAME_S / _PHASES)

        def tick() -> None:
            for paced in list(phase):
                if paced not in phase:
                    continue
                try:
                    paced.tick()
                except Exception as error:
                    phase.pop(paced, None)
                    paced.failed(error)

        def skip(frames: int) -> None:
            for paced in list(phase):
                paced.skip(frames)

        await pace(tick, skip)
