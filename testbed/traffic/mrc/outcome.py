"""What finished transfers left: samples, messages, changes of EVs, out of what their agents hand back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from testbed.mrc.rows import EvCause, EvState
from testbed.pauses import PauseArray
from testbed.pressure import Pressure
from testbed.record import ClockReading, Event
from testbed.samples import ArrivalArray, FlowMessages, SampleFlag, Samples, SentArray
from testbed.traffic.mrc.run import Collected
from testbed.traffic.pairs import Pair

#: What the NIC's own counters call packets that its receive ring had no room for.
_RING_DROPS = "out_of_buffer"
_WHOLE_PLANE = 0xFFFFFFFF
#: An endpoint that waits for a processor this share of the time sends and answers late for no fault of the fabric.
_STARVED_MOST = 0.25


@dataclass(frozen=True)
class TransferOutcome:
    """What finished transfers left.

    Attributes:
        samples: first transmissions and their arrivals, a flow for each queue pair.
        sent, arrivals: every transmission and arrival.
        messages: what became of each flow's messages.
        why: flow → how its messages failed.
        mismatches: what was wrong with messages, the first few of each flow.
        ev_changes: changes of senders' EVs and ports, without the short-lived SKIP.
        base_rtt_ns: the shortest round trip that any sender saw; None without one.
        rounds_ns: host → how long each round of a collective took there.
        clock: readings at start and end.
        counters: all NICs', added up.
        pressure: what the machine had left meanwhile.
        starved: host → share of the time in which its endpoint could have run and had no processor.
        busy: host → processor time of its endpoint over the time that passed, waiting for one included.
        pauses: when processors stood still meanwhile; None where nobody watched.
        limited_by: why the machine and not the fabric decided the figures; empty where it did not.
    """

    samples: Samples
    sent: SentArray
    arrivals: ArrivalArray
    messages: tuple[FlowMessages, ...]
    why: Mapping[str, str]
    mismatches: tuple[str, ...]
    ev_changes: tuple[Event, ...]
    base_rtt_ns: int | None
    rounds_ns: Mapping[str, tuple[int, ...]]
    clock: tuple[ClockReading, ClockReading]
    counters: Mapping[str, int]
    pressure: Pressure
    starved: Mapping[str, float]
    busy: Mapping[str, float]
    pauses: PauseArray | None
    limited_by: str

    @property
    def clock_step_ns(self) -> int:
        """How far CLOCK_REALTIME moved against CLOCK_MONOTONIC during the run."""
        return self.clock[1].step_since(self.clock[0])

    @property
    def failed_messages(self) -> int:
        """Messages that ended with an error."""
        return sum(flow.failed for flow in self.messages)

    @property
    def completed_messages(self) -> int:
        """Messages that were acknowledged."""
        return sum(flow.completed for flow in self.messages)


def collect(left: Collected, names: tuple[str, ...], pairs: Sequence[Pair], grace_s: float) -> TransferOutcome:
    """What the run of these flows left; ``grace_s``: how long what was outstanding could still take."""
    sent = _gathered([files.sent_rows() for files in left.files.values()])
    arrivals = _gathered([files.arrival_rows() for files in left.files.values()])
    again = (sent["flags"] & SampleFlag.RETRANSMITTED) != 0
    came_again = (arrivals["flags"] & SampleFlag.RETRANSMITTED) != 0
    drops = left.counters.get(_RING_DROPS, 0) + sum(files.overflow() for files in left.files.values())
    samples = Samples(
        names,
        sent[~again],
        arrivals[~came_again],
        round(grace_s * 1e9),
        left.counters.get("mrc_send_error_ns", 0),
        receiver_drops=drops,
    )
    messages, why, mismatches = _messages(left, names)
    return TransferOutcome(
        samples=samples,
        sent=sent,
        arrivals=arrivals,
        messages=messages,
        why=why,
        mismatches=mismatches,
        ev_changes=_ev_changes(left, names, pairs),
        base_rtt_ns=min(
            (report["base_rtt_ns"] for report in left.reports.values() if report["base_rtt_ns"] is not None),
            default=None,
        ),
        rounds_ns={host: tuple(report["program"].get("rounds_ns", ())) for host, report in left.reports.items()},
        clock=left.clock,
        counters=left.counters,
        pressure=left.pressure,
        starved=left.starved,
        busy=left.busy,
        pauses=left.pauses,
        limited_by=_limited_by(drops, left.starved),
    )


def _messages(
    left: Collected, names: Sequence[str]
) -> tuple[tuple[FlowMessages, ...], dict[str, str], tuple[str, ...]]:
    sent = {entry["flow"]: entry for report in left.reports.values() for entry in report["sent"]}
    received = {entry["flow"]: entry for report in left.reports.values() for entry in report["received"]}
    messages, why, mismatches = [], {}, []
    for number, name in enumerate(names):
        # An endpoint that was killed reports nothing.
        out = sent.get(number, {"completed": 0, "failed": {}, "outstanding": 0, "times_ns": []})
        one = received.get(number, {"wrong": 0, "mismatches": []})
        stuck = int(out["outstanding"])
        failed = sum(out["failed"].values()) + stuck
        times = np.array(out["times_ns"], np.int64)
        messages.append(FlowMessages(name, int(out["completed"]), failed, int(one["wrong"]), times))
        kinds = dict(out["failed"]) | ({"still outstanding at the end": stuck} if stuck else {})
        why[name] = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        mismatches += one["mismatches"]
    return tuple(messages), why, tuple(mismatches)


def _ev_changes(left: Collected, names: Sequence[str], pairs: Sequence[Pair]) -> tuple[Event, ...]:
    events = []
    for host, files in left.files.items():
        own = [number for number, pair in enumerate(pairs) if host in pair]
        for row in files.ev_events():
            number = own[int(row["qp"])]
            if pairs[number][0] == host:
                event = _ev_change(names[number], row)
                if event is not None:
                    events.append(event)
    return tuple(sorted(events, key=lambda event: event.t_ns))


def _ev_change(flow: str, row: np.void) -> Event | None:
    """What an EV event is called; None for those that come and go with every mark, and for mere changes of place."""
    t_ns, cause = int(row["t_ns"]), EvCause(int(row["cause"])).name.lower().replace("_", " ")
    if int(row["ev"]) == _WHOLE_PLANE:
        what = "port up" if row["after"] else "port down"
        return Event(t_ns, "traffic", f"flow {flow} plane {int(row['plane'])}", what, detail={"cause": cause})
    before, after = EvState(int(row["before"])), EvState(int(row["after"]))
    if before is after or after is EvState.SKIP or (before, after) == (EvState.SKIP, EvState.GOOD):
        return None
    what = after.name.lower().replace("_", " ")
    return Event(t_ns, "traffic", f"flow {flow} ev 0x{int(row['ev']):04x}", what, detail={"cause": cause})


def _limited_by(drops: int, starved: Mapping[str, float]) -> str:
    if drops:
        return f"receivers dropped {drops} packets for want of room"
    host, share = max(starved.items(), key=lambda item: item[1], default=("", 0.0))
    if share > _STARVED_MOST:
        return f"the endpoint of {host} could have run for {share:.0%} of the time and had no processor"
    return ""


def _gathered(parts: Sequence[npt.NDArray[np.void]]) -> npt.NDArray[np.void]:
    """The rows of all parts, copied out of the shared memory."""
    gathered: npt.NDArray[np.void] = np.concatenate(parts)
    return gathered
