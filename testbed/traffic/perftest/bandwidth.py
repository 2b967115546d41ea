"""``mrc_write_bw``: WRITEs posted as fast as the send queues take them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from testbed.traffic.perftest import samples
from testbed.traffic.perftest.output import Bandwidth
from testbed.traffic.perftest.session import Session

Tell = Callable[[Bandwidth], None]


def run(session: Session, tell: Tell) -> None:
    """Measure every size; ``tell`` gets each result, at both ends. Raises InfrastructureError."""
    for size in session.options.sizes:
        if session.options.bidirectional:
            session.meet("sync")
            own = send(session, size)
            session.say("report", **asdict(own))
            tell(own + _report(session))
        elif session.first:
            own = send(session, size)
            session.say("report", **asdict(own))
            tell(own)
        else:
            tell(_report(session))


def send(session: Session, size: int) -> Bandwidth:
    """Send one size, and wait until all of it has completed."""
    return _counted(session, size) if session.options.duration_s is None else _timed(session, size)


class _Queues:
    """What is posted and has completed on each queue pair."""

    def __init__(self, session: Session, size: int) -> None:
        self._session = session
        self._size = size
        self._depth = session.options.tx_depth
        self._posted = [0] * session.options.qps
        self._completed = [0] * session.options.qps
        self._progress_ns = time.monotonic_ns()
        self.posted = 0
        self.completed = 0

    def fill(self, most: int | None) -> None:
        """Post on all in turn until each holds ``tx_depth``, or has had ``most`` messages."""
        room = True
        while room:
            room = False
            for qp, posted in enumerate(self._posted):
                if posted - self._completed[qp] < self._depth and (most is None or posted < most):
                    self._session.post(qp, self._size, posted)
                    self._posted[qp] += 1
                    self.posted += 1
                    room = True

    def turn(self) -> None:
        """A round; takes completions."""
        rows = self._session.turn()
        if len(rows):
            for qp, count in enumerate(self._session.index_of(rows)):
                self._completed[qp] += count
            self.completed += len(rows)
            self._progress_ns = time.monotonic_ns()
        else:
            self._session.stall(self._progress_ns)


def _counted(session: Session, size: int) -> Bandwidth:
    """So many messages on each queue pair."""
    options = session.options
    assert options.iterations is not None
    total = options.iterations * options.qps
    posted, completed = np.zeros(total, np.int64), np.zeros(total, np.int64)
    queues = _Queues(session, size)
    while queues.completed < total:
        begun, now = queues.posted, time.monotonic_ns()
        queues.fill(options.iterations)
        posted[begun : queues.posted] = now
        ended = queues.completed
        queues.turn()
        completed[ended : queues.completed] = time.monotonic_ns()
    return samples.bandwidth(size, posted, completed, peak=options.peak)


def _timed(session: Session, size: int) -> Bandwidth:
    """So long; only what completes between the margins counts."""
    options = session.options
    assert options.duration_s is not None
    queues = _Queues(session, size)
    start = time.monotonic_ns()
    margin, end = options.margin_s * 10**9, start + options.duration_s * 10**9
    opened = closed = (start, 0)
    while (now := time.monotonic_ns()) < end:
        if now < start + margin:
            opened = (now, queues.completed)
        if now <= end - margin:
            closed = (now, queues.completed)
        queues.fill(None)
        queues.turn()
    if not margin:
        closed = (now, queues.completed)
    while queues.completed < queues.posted:
        queues.turn()
    elapsed, count = max(closed[0] - opened[0], 1), closed[1] - opened[1]
    return Bandwidth(size, count, 0.0, size * count / elapsed * 1e9, count / elapsed * 1e9)


def _report(session: Session) -> Bandwidth:
    message = session.listen_for("report")
    try:
        return samples.of_fields({name: value for name, value in message.items() if name != "kind"})
    except ValueError as error:
        raise session.wrong(f"a report with {error}") from None
