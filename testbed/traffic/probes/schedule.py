"""Which packet is due when: rounds over EVs, balanced over planes, and the merge of all flows by due time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.traffic.probes.plan import SendFlow

Indexes = npt.NDArray[np.int64]

#: EVs drawn at a time, whole rounds; fixed, because the order must depend on nothing but seed, flow and EVs.
_DRAW = 2048
#: Packets merged at a time, and at least this many of each flow, so that the work per flow is spread over several.
_MERGE = 1024
_MERGE_PER_FLOW = 16
_SECOND = 1e9


class Rounds:
    """The EVs of one flow in the order they are visited, endlessly.

    Every round visits each EV once, in a random order that goes evenly over the planes: with equally many EVs per
    plane, any group of as many packets as there are planes, counted from the start of a round, holds each plane once.

    Args:
        planes: the plane of each EV.
        seed: with ``flow``, decides the order.
        flow: the flow's number.
    """

    def __init__(self, planes: Sequence[int], seed: int, flow: int) -> None:
        of_ev = np.asarray(planes)
        self._members = [np.flatnonzero(of_ev == plane) for plane in np.unique(of_ev)]
        self._rounds = max(1, _DRAW // len(of_ev))
        self._random = np.random.default_rng([seed, flow])
        self._drawn: Indexes = np.empty(0, np.int64)
        self._at = 0

    def take(self, count: int) -> Indexes:
        """The next ``count`` EVs, as indexes."""
        end = self._at + count
        if end > len(self._drawn):
            parts = [self._drawn[self._at :]]
            have = len(parts[0])
            while have < count:
                parts.append(self._draw())
                have += len(parts[-1])
            self._drawn, self._at, end = np.concatenate(parts), 0, count
        taken = self._drawn[self._at : end]
        self._at = end
        return taken

    def _draw(self) -> Indexes:
        evs, keys = [], []
        for members in self._members:
            count = len(members)
            evs.append(members[np.argsort(self._random.random((self._rounds, count)), axis=1)])
            # One EV of a plane falls into each of `count` equal parts of the round.
            keys.append((np.arange(count) + self._random.random((self._rounds, count))) / count)
        order = np.argsort(np.concatenate(keys, axis=1), axis=1)
        return np.take_along_axis(np.concatenate(evs, axis=1), order, axis=1).reshape(-1)


@dataclass(frozen=True)
class Due:
    """Packets in the order they are due. Columns of equal length.

    Attributes:
        t_ns: due time after the start; all 0 for flows that are not paced.
        flow: index of the flow in the plan.
        ev: index of the EV in its flow.
        seq: sequence number in its flow.
    """

    t_ns: Indexes
    flow: Indexes
    ev: Indexes
    seq: Indexes

    def __len__(self) -> int:
        return len(self.t_ns)


class Schedule:
    """All flows of a sender merged by due time.

    Packet ``k`` of a flow is due ``(phase + k) / rate`` after the start; the flows' phases are spread over
    ``[0, 1)``, so that flows of equal rate do not send at the same moments. Flows without a rate take turns.
    """

    def __init__(self, flows: Sequence[SendFlow], seed: int) -> None:
        self.paced = flows[0].rate > 0
        self._interval = np.array([_SECOND / flow.rate if self.paced else 1.0 for flow in flows])
        self._phase = np.arange(len(flows)) / len(flows)
        self._left = np.array([flow.count or np.iinfo(np.int64).max for flow in flows])
        self._next = np.zeros(len(flows), np.int64)
        self._rounds = [Rounds(flow.planes, seed, flow.number) for flow in flows]
        self._merge = max(_MERGE, _MERGE_PER_FLOW * len(flows))
        self._horizon = 0.0
        empty = np.empty(0, np.int64)
        self._ready = Due(empty, empty, empty, empty)

    def take(self, count: int) -> Due:
        """The next packets: ``count`` of them, or fewer when the flows' counts are used up."""
        parts = [self._ready]
        have = len(self._ready)
        while have < count and (self._left > 0).any():
            parts.append(self._merged())
            have += len(parts[-1])
        if len(parts) > 1:
            self._ready = _joined(parts)
        taken = _part(self._ready, slice(0, count))
        self._ready = _part(self._ready, slice(count, None))
        return taken

    def _merged(self) -> Due:
        active = self._left > 0
        # Until every unfinished flow together has `_merge` packets before the horizon, never fewer than one.
        step = self._merge / (1.0 / self._interval[active]).sum()
        earliest = ((self._phase + self._next) * self._interval)[active].min()
        self._horizon = max(self._horizon + step, float(earliest) + 1.0)
        until = np.ceil(self._horizon / self._interval - self._phase).astype(np.int64)
        counts = np.clip(until - self._next, 0, self._left)
        flow = np.repeat(np.arange(len(counts)), counts)
        starts = np.concatenate(([0], np.cumsum(counts)))
        seq = np.arange(starts[-1]) - starts[flow] + self._next[flow]
        ev = np.concatenate([self._rounds[index].take(int(counts[index])) for index in np.flatnonzero(counts)])
        t_ns = ((self._phase[flow] + seq) * self._interval[flow]).astype(np.int64)
        self._next += counts
        self._left -= counts
        if len(counts) > 1:
            order = np.argsort(t_ns, kind="stable")
            t_ns, flow, ev, seq = t_ns[order], flow[order], ev[order], seq[order]
        return Due(t_ns if self.paced else np.zeros_like(t_ns), flow, ev, seq)


def _joined(parts: Sequence[Due]) -> Due:
    return Due(
        np.concatenate([part.t_ns for part in parts]),
        np.concatenate([part.flow for part in parts]),
        np.concatenate([part.ev for part in parts]),
        np.concatenate([part.seq for part in parts]),
    )


def _part(due: Due, part: slice) -> Due:
    return Due(due.t_ns[part], due.flow[part], due.ev[part], due.seq[part])
