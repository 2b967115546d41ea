"""The ways that probes take, as a localiser sees them, and what became of each probe."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Hop:
    """A link crossed in one direction, from the node ``tail`` to the node ``head``."""

    link: str
    tail: str
    head: str


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one kind of probe: its links in order, from a host to a host.

    Attributes:
        name: for people: ``h0:p3 p3-t0-0 p3-t1-1 p3-t0-0 h0``.
        plane: of all its links.
        hops: at least two; the first leaves a host, the last leads to one, all between are switches.
    """

    name: str
    plane: int
    hops: tuple[Hop, ...]


class Status(IntEnum):
    """What became of a probe.

    ARRIVED: within the waiting time. LOST: not within it. UNKNOWN: not within it, while the machine itself was dropping
    packets. LATE: it arrived after it had been called lost or unknown.
    """

    ARRIVED = 0
    LOST = 1
    UNKNOWN = 2
    LATE = 3


#: A probe whose fate is known. ``t_ns``: CLOCK_REALTIME when it was handed to the kernel; ``delay_ns``: from then to
#: the kernel's receive stamp, 0 where it did not arrive; ``route``: its number; ``seq``: of the probe, u32, wraps.
OUTCOME = np.dtype(
    [("t_ns", "<i8"), ("delay_ns", "<i8"), ("route", "<u4"), ("seq", "<u4"), ("status", "u1"), ("pad", "V7")]
)

OutcomeArray = npt.NDArray[np.void]
