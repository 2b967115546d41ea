"""Work spread over all processors."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Final, TypeVar

from testbed.errors import InfrastructureError

#: So many heavy tasks are not worth a second process.
FEW: Final = 8
_MOST_WORKERS: Final = 8
#: Tasks that a process is given at once: few enough that all end at about the same time.
_AT_ONCE: Final = 4
#: Objects made until a process of the pool looks for those that only point to each other.
_OBJECTS: Final = 200_000

_G = TypeVar("_G")
_T = TypeVar("_T")
_R = TypeVar("_R")
#: In a process of the pool: what all tasks have in common, and what is done with each.
_common: tuple[Callable[[Any, Any], Any], Any] | None = None


def spread(work: Callable[[_G, _T], _R], given: _G, tasks: Sequence[_T], heavy: int) -> Iterator[_R]:
    """``work(given, task)`` of every task, in their order.

    Args:
        work: a function of a module.
        given: what all tasks have in common; goes to every process once, however many tasks there are.
        tasks: small things.
        heavy: how many of the tasks are worth another process.

    Raises InfrastructureError when a process dies, and what the work raises.
    """
    workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
    if heavy <= FEW or workers < 2:
        for task in tasks:
            yield work(given, task)
        return
    # Spawned, not forked: who calls may have threads.
    with ProcessPoolExecutor(workers, get_context("spawn"), _take, (work, given)) as pool:
        try:
            yield from pool.map(_carry_out, tasks, chunksize=_AT_ONCE)
        except BrokenProcessPool:
            raise InfrastructureError(
                "a process that helped died", where=work.__module__, remedy="look for what killed it: out of memory?"
            ) from None


def _take(work: Callable[[Any, Any], Any], given: Any) -> None:
    global _common
    _common = work, given
    # A result is hundreds of thousands of objects without a cycle: looking for one every 700 takes a fifth of the time.
    gc.set_threshold(_OBJECTS)


def _carry_out(task: Any) -> Any:
    assert _common is not None
    work, given = _common
    return work(given, task)
