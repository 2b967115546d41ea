"""The ledger of a finished workload, and at which places each EV lost its packets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from testbed.addressing import Path
from testbed.lab import Lab
from testbed.ledger.attribution import Attribution, Lost, attribute
from testbed.ledger.edges import REFUSED
from testbed.ledger.ledger import Ledger, draw_up
from testbed.measure.definitions import Report
from testbed.record import Drop, Figure
from testbed.samples import ArrivalArray, SentArray
from testbed.traffic.counting import Counted

_MOST_PLACES = 8


@dataclass(frozen=True)
class Accounts:
    """The ledger of a run, and what it says of each EV that lost packets on the fabric."""

    ledger: Ledger
    attributions: tuple[Attribution, ...]

    @property
    def contradictions(self) -> list[str]:
        """What fails the run, a line each."""
        unexplained = self.ledger.unexplained
        return [f"{unexplained} packets are unexplained: {_places(self.ledger)}"] if unexplained else []

    def figure(self, report: Report) -> Figure:
        """``unexplained_packets``."""
        ledger = self.ledger
        value = None if ledger.unknown else ledger.unexplained
        note = f"unknown: {ledger.unknown}" if ledger.unknown else _places(ledger)
        return report.figure("unexplained_packets", value, ledger.sent, "all", note=note)


class _Workload(Protocol):
    @property
    def flows(self) -> Sequence[str]:
        """Names by flow number."""
        ...

    @property
    def path_of(self) -> Mapping[tuple[int, int], Path]:
        """(flow number, EV) → path."""
        ...

    @property
    def counted(self) -> Counted:
        """The readings around it."""
        ...


def account(
    lab: Lab, flows: _Workload, sent: SentArray, arrivals: ArrivalArray, extra: Sequence[Drop] = ()
) -> Accounts:
    """Draw up the ledger of a finished workload.

    Args:
        lab: what it ran on.
        flows: the workload.
        sent, arrivals: all its packets of which there are samples.
        extra: packets that fault rules dropped whose counters are gone.
    """
    counted = flows.counted
    ledger = draw_up(lab, counted.before, counted.after, counted.hosts, smallest=counted.smallest, extra=extra)
    if counted.unknown:
        ledger = replace(ledger, unknown=counted.unknown)
    # With a remainder or others' packets among them the places do not tell where the workload's were.
    certain = not ledger.unknown and not ledger.unexplained
    found = attribute(_lost(flows, sent, arrivals), _on_the_way(ledger.drops)) if certain else []
    return Accounts(ledger, tuple(found))


def _places(ledger: Ledger) -> str:
    named = [f"{one.place}: {one.packets}" for one in ledger.remainders if one.packets > 0]
    return "; ".join(named[:_MOST_PLACES])


def _on_the_way(drops: Sequence[Drop]) -> list[Drop]:
    """Without what the sender's own kernel refused: its samples say of each packet that it was."""
    return [drop for drop in drops if not drop.cause.startswith(REFUSED)]


def _lost(flows: _Workload, sent: SentArray, arrivals: ArrivalArray) -> list[Lost]:
    """Per EV the packets that were taken and did not come, copies not counted."""
    taken = _per_ev(sent[sent["status"] == 0])
    came = _per_ev(arrivals)
    return [
        Lost(flows.flows[flow], ev, flows.path_of[flow, ev], packets - came.get((flow, ev), 0))
        for (flow, ev), packets in taken.items()
        if (flow, ev) in flows.path_of
    ]


def _per_ev(rows: npt.NDArray[np.void]) -> dict[tuple[int, int], int]:
    keys = rows["flow"].astype(np.uint64) << np.uint64(32) | rows["ev"]
    values, counts = np.unique(keys, return_counts=True)
    return {(int(key) >> 32, int(key) & 0xFFFF_FFFF): int(count) for key, count in zip(values, counts, strict=True)}
