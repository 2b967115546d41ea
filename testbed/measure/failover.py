"""From an event to its consequences: failover, restore and detect time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from testbed.errors import UsageError
from testbed.measure.definitions import Report
from testbed.measure.match import Matched
from testbed.record import Event, Figure
from testbed.samples import ArrivalArray, SampleFlag

F64 = npt.NDArray[np.float64]

#: Goodput is back at this share of what the paths can carry …
BACK_AT = 0.9
#: … and stays there for this many windows.
STAYS_FOR = 5
#: With fewer packets per window one packet more or less decides whether 90% are reached.
FEWEST_PER_WINDOW = 10


@dataclass(frozen=True)
class Transition:
    """An event whose consequences are to be timed.

    Attributes:
        event: the fault's injection, or for ``restore`` its end.
        kind: ``failover`` or ``restore``.
        expected_bps: what the remaining (for ``restore``: the healed) paths can carry of what is offered, in
            payload bit/s; a number, or one per window from the event on, of which the last holds on.
        plane: watch this plane's goodput only; None for all.
        flow: watch this flow's goodput only; None for all.
        paths: names of the paths the event concerns; the sender's state changes that name one count as
            having detected it. Empty: no detect time.
    """

    event: Event
    kind: Literal["failover", "restore"]
    expected_bps: float | F64
    plane: int | None = None
    flow: int | None = None
    paths: frozenset[str] = frozenset()

    def scope(self, flows: tuple[str, ...]) -> str:
        """The scope's name, as figures carry it."""
        parts = [] if self.flow is None else [f"flow {flows[self.flow]}"]
        parts += [] if self.plane is None else [f"plane {self.plane}"]
        return " ".join(parts) or "all"


@dataclass(frozen=True)
class Goodput:
    """Goodput in whole windows from an origin to the last sending.

    Attributes:
        origin_ns: start of the first window.
        window_ns: length of a window.
        bps: shape (windows,), payload received for the first time, bit/s.
        packet_bps: what one packet in a window amounts to.
        median_delay_ns: median one-way delay of what was received; 0 without any.
    """

    origin_ns: int
    window_ns: int
    bps: F64
    packet_bps: float
    median_delay_ns: int


def goodput(
    matched: Matched,
    *,
    origin_ns: int,
    window_ns: int,
    payload_bytes: int,
    plane: int | None = None,
    flow: int | None = None,
) -> Goodput:
    """Goodput of a plane, a flow or all, in windows that start at ``origin_ns``.

    Raises:
        UsageError: a window or payload that is not positive, or an unknown flow.
    """
    if window_ns <= 0 or payload_bytes <= 0:
        raise UsageError(
            "goodput needs a sampling window and a payload",
            found=f"{window_ns} ns, {payload_bytes} bytes",
            expected="both above 0",
        )
    packets, t_sent = matched.received, matched.t_sent
    if flow is not None:
        flows = len(matched.samples.flows)
        if not 0 <= flow < flows:
            raise UsageError("no such flow", found=str(flow), expected=f"0 to {flows - 1}")
        low, high = int(matched.flow_starts[flow]), int(matched.flow_starts[flow + 1])
        packets, t_sent = packets[(packets >= low) & (packets < high)], t_sent[low:high]
    if plane is not None:
        packets = packets[matched.plane[packets] == plane]
    last = int(t_sent.max()) if t_sent.size else origin_ns
    windows = max((last - origin_ns) // window_ns, 0)
    arrived_at = matched.t_arrived[packets]
    delay = int(np.median(arrived_at - matched.t_sent[packets])) if packets.size else 0
    arrived_at = arrived_at[(arrived_at >= origin_ns) & (arrived_at < origin_ns + windows * window_ns)]
    counts = np.bincount((arrived_at - origin_ns) // window_ns, minlength=windows)
    packet_bps = payload_bytes * 8e9 / window_ns
    return Goodput(origin_ns, window_ns, counts.astype(np.float64) * packet_bps, packet_bps, delay)


def placed_goodput(
    arrivals: ArrivalArray,
    *,
    origin_ns: int,
    window_ns: int,
    end_ns: int,
    plane: int | None = None,
    flow: int | None = None,
    delay_ns: int = 0,
) -> Goodput:
    """Goodput as bytes placed in the receivers' memory for the first time, retransmissions among them.

    Args:
        arrivals: all of them; those without :attr:`SampleFlag.PLACED` do not count.
        origin_ns: start of the first window.
        window_ns: length of a window.
        end_ns: sending ended here; only whole windows before it are made.
        plane, flow: count those of one plane or flow only.
        delay_ns: median one-way delay.
    """
    chosen = (arrivals["flags"] & SampleFlag.PLACED) != 0
    windows = max((end_ns - origin_ns) // window_ns, 0)
    chosen &= (arrivals["t_ns"] >= origin_ns) & (arrivals["t_ns"] < origin_ns + windows * window_ns)
    if plane is not None:
        chosen &= arrivals["plane"] == plane
    if flow is not None:
        chosen &= arrivals["flow"] == flow
    rows = arrivals[chosen]
    octets = rows["bytes"].astype(np.float64)
    totals: F64 = np.bincount((rows["t_ns"] - origin_ns) // window_ns, weights=octets, minlength=windows).astype(
        np.float64
    )
    packet = float(octets.max()) if octets.size else 0.0
    return Goodput(origin_ns, window_ns, totals * (8e9 / window_ns), packet * 8e9 / window_ns, delay_ns)


def transition_figure(series: Goodput, wanted: Transition, *, flows: tuple[str, ...], report: Report) -> Figure:
    """Failover or restore time: from the event to the first window back at 90% that begins 5 such windows.

    The value is the start of that window; it is a lower bound where the run ended before goodput was back.
    Resolution is one window and the event's own uncertainty. ``series`` begins at the event.
    """
    event, window_ns = wanted.event, series.window_ns
    windows = series.bps.size
    # Less a rounding error: 36 of 40 packets are 90%.
    needed = BACK_AT * _per_window(wanted.expected_bps, windows) * (1 - 1e-9)
    scope = wanted.scope(flows)
    subject = f"{event.subject} {event.what}, window {window_ns * 1e-9:.6f} s"
    unfit = _unfit(series, needed)
    if unfit:
        return report.figure(wanted.kind, None, windows, scope, note=f"{subject}: {unfit}")
    back = np.flatnonzero(stays(series.bps >= needed))
    resolution = (window_ns + event.uncertainty_ns) * 1e-9
    if back.size:
        note = subject if back[0] else f"{subject}: never below {BACK_AT:.0%}"
        value = int(back[0]) * window_ns * 1e-9
        return report.figure(wanted.kind, value, windows, scope, resolution=resolution, note=note)
    # It may have come back in the last windows, too late to be seen to stay.
    tail = int(np.argmin((series.bps >= needed)[::-1]))
    return report.figure(
        wanted.kind,
        (windows - tail) * window_ns * 1e-9,
        windows,
        scope,
        resolution=resolution,
        note=f"{subject}: not back when sending ended",
        at_least=True,
    )


def stays(enough: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which windows begin :data:`STAYS_FOR` that are all ``enough``; shape (windows - STAYS_FOR + 1,)."""
    run = np.convolve(enough, np.ones(STAYS_FOR, dtype=np.int64), mode="valid")
    return np.asarray(run == STAYS_FOR)


def detect_figure(event: Event, changes: Iterable[Event], paths: Collection[str], report: Report, scope: str) -> Figure:
    """Time from an event to the first change of the sender's state whose subject is one of ``paths``."""
    earliest = event.t_ns - event.uncertainty_ns
    named = [c for c in changes if c.subject in paths and c.t_ns >= earliest]
    what = f"{event.subject} {event.what}"
    if not named:
        return report.figure("detect", None, 0, scope, note=f"{what}: no state change names {', '.join(sorted(paths))}")
    first = min(named, key=lambda c: c.t_ns)
    return report.figure(
        "detect",
        max(first.t_ns - event.t_ns, 0) * 1e-9,
        len(named),
        scope,
        resolution=(first.uncertainty_ns + event.uncertainty_ns) * 1e-9,
        note=f"{what}: {first.subject} {first.what}",
    )


def _per_window(expected: float | F64, windows: int) -> F64:
    """The expectation for each window; a series that is too short holds its last value."""
    given = np.atleast_1d(np.asarray(expected, dtype=np.float64))
    if not given.size or not bool((given > 0).all()):
        raise UsageError("what the paths can carry must be above 0", found=str(expected), expected="bit/s above 0")
    return given[np.minimum(np.arange(windows), given.size - 1)]


def _unfit(series: Goodput, needed: F64) -> str:
    """Why these windows cannot tell; empty if they can."""
    if series.bps.size < STAYS_FOR:
        return f"only {series.bps.size} windows between the event and the last sending, {STAYS_FOR} are needed"
    if series.median_delay_ns >= STAYS_FOR * series.window_ns:
        return f"{STAYS_FOR} windows are shorter than the one-way delay, what arrives in them was sent before"
    packets = float(needed.min()) / BACK_AT / max(series.packet_bps, 1e-9)
    if packets < FEWEST_PER_WINDOW:
        return f"a window holds {packets:.1f} packets, {FEWEST_PER_WINDOW} are needed to tell {BACK_AT:.0%}"
    return ""
