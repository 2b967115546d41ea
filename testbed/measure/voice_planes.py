"""RTP on the ports of a fabric: loss, order, delay and failover of each plane, and of each direction on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from testbed.measure import delay, loss, reorder
from testbed.measure.arrays import I64, Bool
from testbed.measure.definitions import Report
from testbed.measure.match import Matched
from testbed.measure.streams import Level, Scope, streams
from testbed.record import Event, Figure

#: A plane carries again from when of every so many packets in a row …
_IN_A_ROW = 20
#: … no more than this part is lost.
_MAY_BE_LOST = 0.1


def plane_figures(
    matched: Matched, directions: Sequence[str], faults: Sequence[Event], report: Report
) -> Iterator[Figure]:
    """All figures of scopes ``plane 3``, ``up plane 3``, ``down plane 3``, of those that carried something.

    Args:
        matched: packets of each leg of each call, with the plane that they left by.
        directions: of each flow.
        faults: when each fault hit.
        report: makes the figures.
    """
    found = streams(matched, Level.PLANE)
    note = f"waiting time {matched.waiting_time_ns * 1e-9:g} s"
    counts, order = loss.counts(found), reorder.reordering(found)
    # No outage: how long a plane is not chosen at random is no figure of the plane.
    delays = delay.delays(found)
    of_flow = np.array([directions[int(flow)] for flow in found.flow], dtype=object)
    for plane in np.unique(found.key).tolist():
        here = found.key == plane
        scopes = [Scope(f"plane {plane}", np.flatnonzero(here))]
        scopes += [Scope(f"{name} plane {plane}", np.flatnonzero(here & (of_flow == name))) for name in ("up", "down")]
        for scope in (each for each in scopes if each.streams.size):
            yield from loss.loss_figures(counts, scope, report, note)
            yield from reorder.reordering_figures(order, scope, report, note)
            yield from delay.delay_figures(delays, scope, report)
            packets = np.flatnonzero(np.isin(found.of, scope.streams))
            for fault in faults:
                yield failover(matched.t_sent[packets], matched.lost[packets], fault, scope.name, report)


def failover(t_sent: I64, lost: Bool, fault: Event, scope: str, report: Report) -> Figure:
    """Time from a fault to the first packet from which on what is sent arrives, all but a tenth of any 20 in a row.

    Counted by packets, for those of a few calls on one plane are too few for windows of time.

    Args:
        t_sent: shape (n,), when each packet left.
        lost: shape (n,), whether it is lost.
        fault: when it hit.
        scope: of the figure.
        report: makes it.
    """
    order = np.argsort(t_sent, kind="stable")
    order = order[t_sent[order] >= fault.t_ns]
    sent, missing = t_sent[order], lost[order]
    subject = f"{fault.subject} {fault.what}"
    if sent.size < _IN_A_ROW:
        note = f"{subject}: {sent.size} packets sent after it, {_IN_A_ROW} are needed"
        return report.figure("plane_failover", None, int(sent.size), scope, note=note)
    in_a_row = np.convolve(missing, np.ones(_IN_A_ROW, np.int64), mode="valid")
    bad = np.flatnonzero(in_a_row > _MAY_BE_LOST * _IN_A_ROW)
    resolution = float(np.median(np.diff(sent))) * 1e-9 + fault.uncertainty_ns * 1e-9
    if not bad.size:
        note = f"{subject}: never more than {_MAY_BE_LOST:.0%} of {_IN_A_ROW} in a row lost"
        return report.figure("plane_failover", 0.0, int(sent.size), scope, resolution=resolution, note=note)
    last = int(np.flatnonzero(missing[: bad[-1] + _IN_A_ROW])[-1])
    over = last + 1 < sent.size and bad[-1] + 1 < in_a_row.size
    until = sent[last + 1] if over else sent[-1]
    note = subject if over else f"{subject}: not back when sending ended"
    value = float(until - fault.t_ns) * 1e-9
    return report.figure(
        "plane_failover", value, int(sent.size), scope, resolution=resolution, note=note, at_least=not over
    )
