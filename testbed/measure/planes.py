"""How evenly the planes carried the load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from testbed.measure.arrays import I64
from testbed.measure.definitions import Report
from testbed.measure.match import Matched
from testbed.record import Figure


def planes_seen(matched: Matched) -> tuple[int, ...]:
    """The planes packets were sent or received on, ascending."""
    seen = np.bincount(matched.plane, minlength=256) + np.bincount(matched.received_plane, minlength=256)
    return tuple(int(plane) for plane in np.flatnonzero(seen))


def delivered(matched: Matched, planes: Sequence[int]) -> I64:
    """Packets delivered per flow and plane, by the port they arrived on; shape (flows, len(planes))."""
    flows = matched.flow_starts.size - 1
    flow = np.searchsorted(matched.flow_starts, matched.received, side="right") - 1
    flow *= 256
    flow += matched.received_plane
    table = np.bincount(flow, minlength=flows * 256).reshape(flows, 256)
    return table[:, list(planes)].astype(np.int64)


def plane_figures(matched: Matched, planes: Sequence[int], report: Report) -> Iterator[Figure]:
    """Each plane's share, the imbalance over all and per flow, and packets on a plane not meant for them.

    All packets of a workload have one size, so shares of packets are shares of bytes.
    """
    table = delivered(matched, planes)
    per_plane = table.sum(axis=0)
    total = int(per_plane.sum())
    strayed = int(np.count_nonzero(matched.received_plane != matched.plane[matched.received]))
    yield report.figure("wrong_plane", strayed, matched.received.size, "all")
    nothing = "" if total else "nothing was delivered"
    for plane, packets in zip(planes, per_plane.tolist(), strict=True):
        share = packets / total if total else None
        yield report.figure("plane_share", share, total, f"plane {plane}", resolution=1 / max(total, 1), note=nothing)
    yield _imbalance(per_plane, "all", report)
    for name, row in zip(matched.samples.flows, table, strict=True):
        yield _imbalance(row, f"flow {name}", report)


def _imbalance(packets: I64, scope: str, report: Report) -> Figure:
    """Largest over mean: 1 is even, the number of planes is all on one."""
    total = int(packets.sum())
    if not total:
        return report.figure("plane_imbalance", None, 0, scope, note="nothing was delivered")
    mean = total / packets.size
    note = f"over {packets.size} planes"
    return report.figure("plane_imbalance", int(packets.max()) / mean, total, scope, resolution=1 / mean, note=note)
