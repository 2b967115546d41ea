"""What this process has running, for its exporter and for `testbed watch`: workloads and faults."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from testbed.live.counting import I64, Count
from testbed.live.telling import telling


@dataclass(frozen=True)
class Snapshot:
    """A workload at one moment.

    Attributes:
        workload: its kind: ``probes``, ``mrc``, ``calls`` or ``prober``.
        fabric: the name of the fabric it runs on.
        lab: that of its lab.
        flows: names of flows, by number.
        of_plane: shape (planes, 6), of :class:`~testbed.live.counting.Count`.
        of_flow: shape (flows, 6).
        evs: (plane, state) → entropy values of senders in it; empty where a workload has no states.
        processes: (role, whether it runs) → how many.
        overflow: packets that found no room to be recorded: counts stand still then.
    """

    workload: str
    fabric: str
    lab: str
    flows: tuple[str, ...]
    of_plane: I64
    of_flow: I64
    evs: Mapping[tuple[int, str], int] = field(default_factory=dict)
    processes: Mapping[tuple[str, bool], int] = field(default_factory=dict)
    overflow: int = 0


class View(Protocol):
    """A workload that can be looked at while it runs."""

    def look(self, now_ns: int) -> Snapshot:
        """How it is at this time, CLOCK_REALTIME ns. Called by one thread at a time."""


@dataclass(frozen=True)
class InForce:
    """A fault that is in force. ``since``: time.time() of its injection."""

    kind: str
    subject: str
    since: float


class Live:
    """What goes on in this process. Workloads and faults tell it; whoever wants to know asks it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._views: dict[int, View] = {}
        self._shown = 0
        #: By their scopes: of one that was never left nothing stays when nobody holds it any more.
        self._faults: weakref.WeakKeyDictionary[object, InForce] = weakref.WeakKeyDictionary()
        #: (workload, lab) → counts of planes of workloads that have ended, so that counters never go back.
        self._past: dict[tuple[str, str], I64] = {}
        self._recorders = 0

    def record(self) -> None:
        """From now on keep the counts of workloads that end, for :meth:`totals`."""
        with self._lock:
            if not self._recorders:
                self._past.clear()
            self._recorders += 1

    def record_no_more(self) -> None:
        """Whoever wanted them does not any more."""
        with self._lock:
            self._recorders -= 1

    @contextlib.contextmanager
    def shown(self, view: View) -> Iterator[None]:
        """Show a workload while the block runs."""
        with self._lock:
            self._shown += 1
            number = self._shown
            self._views[number] = view
        try:
            with telling(self):
                yield
        finally:
            with self._lock:
                del self._views[number]
                if self._recorders:
                    self._keep(view.look(time.time_ns()))

    def _keep(self, last: Snapshot) -> None:
        key = (last.workload, last.lab)
        self._past[key] = _sum(self._past.get(key), last.of_plane)

    def look(self) -> dict[int, Snapshot]:
        """Every workload that runs, as it is now, by a number that no other of this process has."""
        with self._lock:
            now_ns = time.time_ns()
            return {number: view.look(now_ns) for number, view in self._views.items()}

    def totals(self) -> tuple[list[Snapshot], dict[tuple[str, str], I64]]:
        """What runs, and (workload, lab) → counts of planes since this process recorded, ended workloads included."""
        with self._lock:
            found = list(self.look().values())
            sums = dict(self._past)
            for each in found:
                key = (each.workload, each.lab)
                sums[key] = _sum(sums.get(key), each.of_plane)
            return found, sums

    def fault_begins(self, token: object, kind: str, subject: str) -> None:
        """A fault is in force from now on; ``token`` names it when it ends."""
        with self._lock:
            self._faults[token] = InForce(kind, subject, time.time())

    def fault_ends(self, token: object) -> None:
        """A fault is over."""
        with self._lock:
            self._faults.pop(token, None)

    def faults(self) -> list[InForce]:
        """Faults in force, the oldest first."""
        with self._lock:
            return list(self._faults.values())

    def faults_by_kind(self) -> Counter[str]:
        """How many faults of each kind are in force."""
        return Counter(fault.kind for fault in self.faults())


def _sum(one: I64 | None, other: I64) -> I64:
    """Counts of planes added up, where one may have more planes."""
    total: I64 = np.zeros((max(0 if one is None else len(one), len(other)), len(Count)), np.int64)
    total[: len(other)] += other
    if one is not None:
        total[: len(one)] += one
    return total


#: Of this process.
LIVE = Live()
