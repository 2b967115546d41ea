"""Figures of MRC transfers: what their messages, retransmissions and EVs came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from testbed.measure.definitions import Report
from testbed.measure.percentiles import nearest_rank, samples_needed
from testbed.record import Event, Figure
from testbed.samples import ArrivalArray, FlowMessages, SampleFlag, SentArray

_PERCENTILES = {"p50": "50", "p99": "99"}


def message_figures(flows: Sequence[FlowMessages], report: Report) -> Iterator[Figure]:
    """Counts and times of messages, of each flow and of all."""
    everything = FlowMessages(
        "",
        sum(flow.completed for flow in flows),
        sum(flow.failed for flow in flows),
        sum(flow.mismatches for flow in flows),
        np.concatenate([flow.times_ns for flow in flows]) if flows else np.zeros(0, np.int64),
    )
    for flow in (everything, *flows):
        scope = f"flow {flow.name}" if flow.name else "all"
        ended = flow.completed + flow.failed
        yield report.figure("messages", flow.completed, ended, scope)
        yield report.figure("messages_failed", flow.failed, ended, scope)
        yield report.figure("mismatches", flow.mismatches, flow.completed, scope)
        times = flow.times_ns
        for name, percentile in _PERCENTILES.items():
            value = nearest_rank(times, percentile)
            note = "" if value is not None else f"needs {samples_needed(percentile)} messages, there are {times.size}"
            seconds = None if value is None else value * 1e-9
            yield report.figure(f"message_time_{name}", seconds, times.size, scope, note=note)
        largest = float(times.max()) * 1e-9 if times.size else None
        note = "" if times.size else "no message completed"
        yield report.figure("message_time_max", largest, times.size, scope, note=note)


def retransmission_figures(sent: SentArray, flows: Sequence[str], report: Report) -> Iterator[Figure]:
    """Packets sent again, of each flow and of all."""
    again = (sent["flags"] & SampleFlag.RETRANSMITTED) != 0
    first_of = np.bincount(sent["flow"][~again], minlength=len(flows))
    again_of = np.bincount(sent["flow"][again], minlength=len(flows))
    scopes = [("all", int(first_of.sum()), int(again_of.sum()))]
    scopes += [
        (f"flow {name}", int(one), int(other)) for name, one, other in zip(flows, first_of, again_of, strict=True)
    ]
    for scope, first, repeated in scopes:
        yield report.figure("retransmissions", repeated, first + repeated, scope)
        ratio = repeated / first if first else None
        note = "" if first else "nothing was sent"
        yield report.figure("retransmission_ratio", ratio, first, scope, resolution=1 / max(first, 1), note=note)


def placed_figures(
    sent: SentArray, arrivals: ArrivalArray, flows: Sequence[str], planes: Sequence[int], report: Report
) -> Iterator[Figure]:
    """Goodput as bytes placed for the first time, of all, of each flow and each plane."""
    placed = arrivals[(arrivals["flags"] & SampleFlag.PLACED) != 0]
    octets = placed["bytes"].astype(np.float64)
    seconds = float(sent["t_ns"].max() - sent["t_ns"].min()) * 1e-9 if sent.size else 0.0
    by_flow = np.bincount(placed["flow"], octets, len(flows))
    by_plane = np.bincount(placed["plane"], octets, 256)
    packets_of_flow = np.bincount(placed["flow"], minlength=len(flows))
    packets_of_plane = np.bincount(placed["plane"], minlength=256)
    rows = [("all", float(octets.sum()), placed.size)]
    rows += [(f"flow {name}", float(by_flow[i]), int(packets_of_flow[i])) for i, name in enumerate(flows)]
    rows += [(f"plane {plane}", float(by_plane[plane]), int(packets_of_plane[plane])) for plane in planes]
    for scope, total, packets in rows:
        value = total * 8 / seconds if seconds > 0 else None
        note = "bytes placed for the first time" if value is not None else "too few packets sent for a rate"
        yield report.figure("goodput", value, packets, scope, note=note)


def path_restore_figure(
    event: Event, ended: Event, retired: Sequence[Event], returned: Sequence[Event], report: Report
) -> Figure:
    """How long after the end of a fault every EV that it cost was in use again.

    Args:
        event: the fault.
        ended: its end.
        retired: changes of senders' states by which an EV left use; ``subject`` names flow and EV.
        returned: those by which one came back.
    """
    began = event.t_ns - event.uncertainty_ns
    given_up: dict[str, int] = {}
    for change in retired:
        if began <= change.t_ns <= ended.t_ns:
            given_up[change.subject] = max(given_up.get(change.subject, 0), change.t_ns)
    resolution = ended.uncertainty_ns * 1e-9
    what = f"{ended.subject} {ended.what}"
    if not given_up:
        return report.figure("path_restore", 0.0, 0, "all", resolution=resolution, note=f"{what}: no EV was given up")
    back: dict[str, int] = {}
    for change in returned:
        if change.subject in given_up and change.t_ns > given_up[change.subject]:
            back[change.subject] = min(back.get(change.subject, change.t_ns), change.t_ns)
    missing = sorted(given_up.keys() - back.keys())
    if missing:
        note = f"{what}: {len(missing)} of {len(given_up)} EVs not back, such as {missing[0]}"
        return report.figure("path_restore", None, len(given_up), "all", note=note)
    value = max(max(back.values()) - ended.t_ns, 0) * 1e-9
    note = f"{what}: {len(given_up)} EVs"
    return report.figure("path_restore", value, len(given_up), "all", resolution=resolution, note=note)
