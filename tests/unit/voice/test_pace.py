"""The clock of calls."""

from __future__ import annotations

import asyncio
import time

from testbed.voice.media.pace import Clock


def test_many_are_ticked_and_one_that_fails_is_told_and_left_out() -> None:
    async def run() -> tuple[list[int], list[str]]:
        clock, counts, failures = Clock(), [0] * 10, list[str]()
        enough = asyncio.Event()

        def ticking(number: int) -> None:
            counts[number] += 1
            if number == 3:
                raise ValueError("broken")
            if min(counts[:3] + counts[4:]) >= 5:
                enough.set()

        removes = [
            clock.add(
                lambda number=number: ticking(number),  # type: ignore[misc]
                lambda _frames: None,
                lambda error: failures.append(str(error)),
            )
            for number in range(10)
        ]
        async with asyncio.timeout(10):
            await enough.wait()
        removes[0]()
        before = counts[0]
        enough.clear()
        async with asyncio.timeout(10):
            await enough.wait()
        assert counts[0] == before
        for remove in removes:
            remove()
        return counts, failures

    counts, failures = asyncio.run(run())
    assert counts[3] == 1
    assert failures == ["broken"]
    assert max(counts[4:]) - min(counts[4:]) <= 2


def test_what_is_left_out_is_told() -> None:
    async def run() -> int:
        clock, skipped, seen = Clock(), list[int](), asyncio.Event()

        def skip(frames: int) -> None:
            skipped.append(frames)
            seen.set()

        # The machine is late by half a second.
        remove = clock.add(lambda: time.sleep(0.5) if not skipped else None, skip, lambda _error: None)
        async with asyncio.timeout(10):
            await seen.wait()
        remove()
        return skipped[0]

    assert 20 <= asyncio.run(run()) <= 200
