"""EV sets for the tests: EVs are numbered by plane, 0xPP00 the first of plane PP."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from testbed.mrc.evs import EvSet
from testbed.mrc.rows import EvCause, EvState
from testbed.mrc.settings import EvSettings

Story = list[tuple[int, str, str, str]]


@pytest.fixture
def make() -> Callable[..., EvSet]:
    """An EV set of ``planes`` planes with ``each`` EVs; other arguments are settings."""

    def build(planes: int = 8, each: int = 2, *, seed: int = 1, qp: int = 0, **settings: int) -> EvSet:
        plane = np.repeat(np.arange(planes), each).astype("u1")
        evs = (plane.astype("u4") << 8) + np.tile(np.arange(each), planes).astype("u4")
        return EvSet(evs, plane, EvSettings(**settings), seed=seed, qp=qp)

    return build


@pytest.fixture
def story() -> Callable[[EvSet], Story]:
    """Events since the last call, readable: (ev, before, after, cause)."""

    def read(evs: EvSet) -> Story:
        return [
            (int(row["ev"]), EvState(row["before"]).name, EvState(row["after"]).name, EvCause(row["cause"]).name)
            for row in evs.take_events()
        ]

    return read


@pytest.fixture
def restore() -> Callable[[EvSet, int, int], int]:
    """Answer so many probes of an EV as bring it back; returns when that was."""

    def answer(evs: EvSet, index: int, now_ns: int) -> int:
        for _ in range(EvSettings().probes_to_restore):
            due = evs.next_due_ns()
            assert due is not None
            now_ns = max(now_ns, due)
            assert index in evs.probes_due(now_ns)
            now_ns += 1
            evs.on_probe_answer(index, now_ns)
        return now_ns

    return answer


@pytest.fixture
def at() -> Callable[..., npt.NDArray[np.int64]]:
    return lambda *indices: np.array(indices, np.int64)
