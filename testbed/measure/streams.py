"""The streams a figure is computed over: flows, a flow's packets on one EV, a flow's packets on one plane.

Order and loss patterns are properties of one stream. A plane, or all, is the sum over its streams; the
packets of two flows are never compared with each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from testbed.measure.arrays import I64, compact, grouping, starts_of
from testbed.measure.match import Matched

Item = TypeVar("Item", bound=np.generic)


class Level(StrEnum):
    """What makes packets belong to one stream."""

    FLOW = "flow"
    EV = "ev"
    PLANE = "plane"


@dataclass(frozen=True)
class Scope:
    """A named set of streams that one figure describes; ``streams`` has shape (k,)."""

    name: str
    streams: I64


@dataclass(frozen=True)
class Streams:
    """All streams of one level.

    Attributes:
        matched: the packets.
        level: what makes a stream.
        flow: shape (m,), the flow number of each stream.
        key: shape (m,), its EV or plane; 0 for flows.
        of: shape (n,), the stream of each packet, in packet order.
        order: shape (n,), the packets grouped by stream, each stream in order of sequence number; None
            where that is packet order itself.
        starts: shape (m + 1,), where each stream starts in ``order``.
        arrived: shape (r,), the packets received, grouped by stream, each in order of arrival.
        arrived_starts: shape (m + 1,), where each stream starts in ``arrived``.
    """

    matched: Matched
    level: Level
    flow: I64
    key: I64
    of: npt.NDArray[np.int32]
    order: I64 | None
    starts: I64
    arrived: I64
    arrived_starts: I64

    @property
    def count(self) -> int:
        """How many streams there are."""
        return int(self.flow.size)

    def name(self, stream: int) -> str:
        """The scope's name of one stream: ``flow h0>h5``, ``flow h0>h5 ev 0x0013``, ``flow h0>h5 plane 3``."""
        flow = f"flow {self.matched.samples.flows[int(self.flow[stream])]}"
        if self.level is Level.EV:
            return f"{flow} ev 0x{int(self.key[stream]):04x}"
        return f"{flow} plane {int(self.key[stream])}" if self.level is Level.PLANE else flow

    def in_order(self, column: npt.NDArray[Item]) -> npt.NDArray[Item]:
        """A packet-order column, grouped by stream and in sequence within each."""
        return column if self.order is None else column[self.order]

    def positions(self) -> I64:
        """For each of ``arrived``, the packet's place in ``order``; ascending means in sequence. Shape (r,)."""
        if self.order is None:
            return self.arrived
        place = np.empty(self.order.size, dtype=np.int64)
        place[self.order] = np.arange(self.order.size, dtype=np.int64)
        return place[self.arrived]

    def per_stream(self, packets: I64) -> I64:
        """How many of ``packets`` belong to each stream; shape (m,)."""
        return np.bincount(self.of[packets], minlength=self.count).astype(np.int64)

    def scopes(self) -> list[Scope]:
        """What figures of this level describe: each flow, each flow's EV, or each plane over all flows."""
        if self.level is Level.PLANE:
            return [Scope(f"plane {int(k)}", np.flatnonzero(self.key == k)) for k in np.unique(self.key)]
        return [Scope(self.name(stream), np.array([stream])) for stream in range(self.count)]

    def everything(self) -> Scope:
        """The scope ``all``."""
        return Scope("all", np.arange(self.count))


def streams(matched: Matched, level: Level) -> Streams:
    """Group packets and arrivals into the streams of one level."""
    flows = matched.flow_starts.size - 1
    flow_of = np.repeat(np.arange(flows, dtype=np.int64), np.diff(matched.flow_starts))
    if level is Level.FLOW:
        flow, key = np.arange(flows, dtype=np.int64), np.zeros(flows, dtype=np.int64)
        of = flow_of.astype(np.int32)
    else:
        column = matched.ev if level is Level.EV else matched.plane
        width = int(column.max()) + 1 if column.size else 1
        flow_of *= width
        flow_of += column
        distinct, of = compact(flow_of, flows * width)
        flow, key = np.divmod(distinct, width)
    del flow_of
    order = grouping(of)
    arrived_of = of[matched.received]
    regroup = grouping(arrived_of)
    return Streams(
        matched=matched,
        level=level,
        flow=flow,
        key=key,
        of=of,
        order=order,
        starts=starts_of(of, flow.size),
        arrived=matched.received if regroup is None else matched.received[regroup],
        arrived_starts=starts_of(arrived_of, flow.size),
    )
