"""``mrc_write_lat``: a ping-pong of WRITEs; each end answers a message as soon as it has wholly arrived.

perftest polls the last byte of the memory written to. Packets of a message are placed in any order here, so the NIC's
word that all of it is there takes the place of that byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from testbed.errors import InfrastructureError
from testbed.traffic.perftest import samples
from testbed.traffic.perftest.output import Latency, LatencyByDuration
from testbed.traffic.perftest.session import Session

Tell = Callable[[Latency | LatencyByDuration, Sequence[float]], None]


def run(session: Session, tell: Tell) -> None:
    """Measure every size; ``tell`` gets each result with its samples (µs). Raises InfrastructureError."""
    if session.options.duration_s is not None:
        (size,) = session.options.sizes
        tell(_timed(session, size), ())
        return
    for size in session.options.sizes:
        figures, each = samples.latency(size, _counted(session, size))
        tell(figures, each.tolist())


def _counted(session: Session, size: int) -> samples.Stamps:
    """When each ping was posted (ns)."""
    iterations = session.options.iterations
    assert iterations is not None
    posted = np.zeros(iterations, np.int64)
    for number in range(iterations):
        if not session.first:
            _await_message(session)
        posted[number] = time.monotonic_ns()
        session.post(0, size, number)
        if session.first:
            _await_message(session)
    return posted


def _timed(session: Session, size: int) -> LatencyByDuration:
    options = session.options
    assert options.duration_s is not None
    posted: list[int] = []
    end = time.monotonic_ns() + options.duration_s * 10**9
    while True:
        if not session.first and not _await_message(session, unless="stop"):
            break
        now = time.monotonic_ns()
        if session.first and now >= end:
            session.say("stop")
            break
        posted.append(now)
        session.post(0, size, len(posted))
        if session.first:
            _await_message(session)
    margin = options.margin_s * 10**9
    within = [stamp for stamp in posted if posted[0] + margin <= stamp <= posted[-1] - margin]
    if len(within) < 2:
        raise InfrastructureError(
            "not one round trip ended between the margins",
            found=f"{len(posted)} round trips in {options.duration_s} s",
            remedy="run longer, with -D",
        )
    trips, elapsed = len(within) - 1, within[-1] - within[0]
    return LatencyByDuration(size, trips, elapsed / trips / 2000.0, trips / elapsed * 1e9)


def _await_message(session: Session, unless: str = "") -> bool:
    """Work until the other end's next message is there; False where it says ``unless`` instead."""
    since = time.monotonic_ns()
    while not session.arrived:
        session.turn()
        if unless and session.heard(unless) is not None:
            return False
        session.stall(since)
    session.arrived -= 1
    return True
