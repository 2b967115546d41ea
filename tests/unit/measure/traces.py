"""Traces written as rows, and made into the columns that measures read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from testbed.samples import ARRIVAL, SENT, Samples

MS = 1_000_000
#: Stamps of real runs are of this size; the traces use it so that no 32-bit or float rounding stays hidden.
T0 = 1_700_000_000_000_000_000


class Sent(NamedTuple):
    seq: int
    t: int
    flow: int = 0
    ev: int = 0
    plane: int = 0
    status: int = 0


class Arrival(NamedTuple):
    seq: int
    t: int
    flow: int = 0
    ev: int = 0
    plane: int = 0


def samples(
    sent: Iterable[Sent],
    arrivals: Iterable[Arrival],
    *,
    flows: Sequence[str] = ("h0>h1",),
    waiting: int = 1_000 * MS,
    send_error: int = 0,
    receiver_drops: int = 0,
) -> Samples:
    """Samples of rows whose times count from T0."""
    offered = np.array([(s.seq, s.t + T0, s.flow, s.ev, s.plane, s.status, 0, 0, 0) for s in sent], dtype=SENT)
    arrived = np.array([(a.seq, a.t + T0, a.flow, a.ev, a.plane, 0, 0, 0) for a in arrivals], dtype=ARRIVAL)
    return Samples(tuple(flows), offered, arrived, waiting, send_error, receiver_drops)


def steady(
    count: int, interval: int, *, delay: int = MS, lost: Iterable[int] = (), evs: int = 1, planes: int = 1
) -> tuple[list[Sent], list[Arrival]]:
    """One flow at a constant rate, sprayed round-robin over EVs, with the packets ``lost`` missing."""
    missing = set(lost)
    sent = [Sent(n, n * interval, ev=n % evs, plane=n % evs % planes) for n in range(count)]
    return sent, [Arrival(s.seq, s.t + delay, ev=s.ev, plane=s.plane) for s in sent if s.seq not in missing]
