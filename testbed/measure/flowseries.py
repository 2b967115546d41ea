"""Counts per flow and window: raw in a file beside the result, and thinned to what a page draws."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from testbed.measure.arrays import I64
from testbed.measure.atomic import write_atomically
from testbed.measure.match import Matched
from testbed.measure.series import FlowSeries, TimelineRecord
from testbed.measure.timeline import Timeline

#: Numbers a result keeps of flows, over all of them: 128 flows of 300 windows, or 20 of 2,000.
MOST_CELLS: Final = 40_000
#: Numbers counted at all: above it neither the file nor the memory is worth it.
MOST_RAW_CELLS: Final = 50_000_000


@dataclass(frozen=True)
class FlowCounts:
    """Packets per flow and sampling window, each of shape (flows, windows), on the windows of a timeline."""

    names: tuple[str, ...]
    delivered: I64
    lost: I64


def count_flows(matched: Matched, timeline: Timeline) -> FlowCounts | None:
    """Count each flow's packets in a timeline's windows; None where that would be too many numbers."""
    names, windows = matched.samples.flows, int(timeline.sent.shape[1])
    if not names or not windows or len(names) * windows > MOST_RAW_CELLS:
        return None
    flow_of = np.repeat(np.arange(len(names)), np.diff(matched.flow_starts))

    def count(packets: I64, times: I64) -> I64:
        cells = flow_of[packets] * windows + (times[packets] - timeline.origin_ns) // timeline.window_ns
        return np.bincount(cells, minlength=len(names) * windows).reshape(len(names), windows).astype(np.int64)

    lost = np.flatnonzero(matched.lost).astype(np.int64)
    return FlowCounts(names, count(matched.received, matched.t_arrived), count(lost, matched.t_sent))


def with_flows(record: TimelineRecord, counts: FlowCounts | None) -> TimelineRecord:
    """A timeline that also holds flows: all, or as many of those that lost the most as there is room for."""
    if counts is None or not record.windows:
        return record
    most = max(MOST_CELLS // record.windows, 1)
    order = np.argsort(-counts.lost.sum(axis=1), kind="stable")[:most]
    edges = np.arange(0, counts.delivered.shape[1], record.merged)
    flows = []
    for row in sorted(order.tolist()):
        delivered = counts.delivered[row]
        flows.append(
            FlowSeries(
                flow=counts.names[row],
                delivered=tuple(np.add.reduceat(delivered, edges).tolist()),
                delivered_min=tuple(np.minimum.reduceat(delivered, edges).tolist()),
                delivered_max=tuple(np.maximum.reduceat(delivered, edges).tolist()),
                lost=tuple(np.add.reduceat(counts.lost[row], edges).tolist()),
            )
        )
    return record.model_copy(update={"flows": tuple(flows), "flows_left_out": len(counts.names) - len(flows)})


def save_series(timeline: Timeline, counts: FlowCounts | None, path: Path) -> None:
    """Write every sampling window, unmerged, as columns of numpy: what the drawings of a page were thinned from.

    Raises:
        InfrastructureError: the folder is missing, full or not writable.

    """
    columns = {
        "origin_ns": np.int64(timeline.origin_ns),
        "window_ns": np.int64(timeline.window_ns),
        "payload_bytes": np.int64(timeline.payload_bytes),
        "planes": np.asarray(timeline.planes, dtype=np.int64),
        **{f"plane.{name}": getattr(timeline, name)[1:] for name in ("sent", "delivered", "lost", "reordered")},
    }
    if counts is not None:
        columns |= {
            "flows": np.asarray(counts.names, dtype=np.str_),
            "flow.delivered": counts.delivered,
            "flow.lost": counts.lost,
        }

    def write(file: BinaryIO) -> None:
        np.savez_compressed(file, allow_pickle=False, **columns)

    write_atomically(path, write)
