"""The outcomes of the last seconds, up to the moment before which every probe's fate is known."""

from __future__ import annotations

import numpy as np

from testbed.localise.elements import Counts, Indexes
from testbed.localise.likelihood import Evidence
from testbed.localise.routes import OUTCOME, OutcomeArray, Status


class Window:
    """Outcomes by the time they were sent. Arrivals are known at once, losses only later: a reader stays behind both.

    Attributes:
        horizon_ns: every probe sent before it is in; nothing sent after it counts yet.
    """

    def __init__(self, routes: int, keep_ns: int) -> None:
        self._routes = routes
        self._keep_ns = keep_ns
        self._waiting: list[OutcomeArray] = []
        self.rows: OutcomeArray = np.zeros(0, OUTCOME)
        self.horizon_ns = 0

    def add(self, rows: OutcomeArray, horizon_ns: int) -> OutcomeArray:
        """Take outcomes in, and those that are due; returns the latter, by time.

        A probe that comes late is from then on one that arrived, as far as it is still kept.
        """
        late = rows[rows["status"] == Status.LATE]
        if len(late):
            self._came_late(late)
            rows = rows[rows["status"] != Status.LATE]
        self._waiting.append(rows)
        every = np.concatenate(self._waiting)
        due = every["t_ns"] <= horizon_ns
        self._waiting = [every[~due]]
        new = every[due]
        new = new[np.argsort(new["t_ns"], kind="stable")]
        self.horizon_ns = max(self.horizon_ns, horizon_ns)
        self.rows = np.concatenate([self.rows[self.rows["t_ns"] > self.horizon_ns - self._keep_ns], new])
        return new

    def _came_late(self, late: OutcomeArray) -> None:
        for part in (self.rows, *self._waiting):
            _, ours, theirs = np.intersect1d(part["seq"], late["seq"], return_indices=True)
            part["status"][ours] = Status.ARRIVED
            part["delay_ns"][ours] = late["delay_ns"][theirs]

    def sent(self, from_ns: int, until_ns: int | None = None) -> OutcomeArray:
        """Outcomes of probes sent from one moment on, up to and including another."""
        times = self.rows["t_ns"]
        end = len(times) if until_ns is None else int(times.searchsorted(until_ns, "right"))
        return self.rows[int(times.searchsorted(from_ns)) : end]

    def lost(self, from_ns: int, until_ns: int | None = None) -> Evidence:
        """Probes with a known fate and lost ones, per route."""
        rows = self.sent(from_ns, until_ns)
        known = rows["status"] != Status.UNKNOWN
        lost = rows["status"] == Status.LOST
        return Evidence(self._count(rows["route"][known]), self._count(rows["route"][lost]))

    def slow(self, from_ns: int, until_ns: int | None, limits_ns: Counts) -> Evidence:
        """Probes that arrived, and those whose delay was above their route's limit."""
        rows = self.sent(from_ns, until_ns)
        rows = rows[rows["status"] == Status.ARRIVED]
        slow = rows["delay_ns"] > limits_ns[rows["route"]]
        return Evidence(self._count(rows["route"]), self._count(rows["route"][slow]))

    def losses(self, from_ns: int) -> tuple[Counts, Counts]:
        """Route and time of each lost probe."""
        rows = self.sent(from_ns)
        rows = rows[rows["status"] == Status.LOST]
        return rows["route"], rows["t_ns"]

    def slow_ones(self, from_ns: int, limits_ns: Counts) -> tuple[Counts, Counts]:
        """Route and time of each probe above its limit."""
        rows = self.sent(from_ns)
        rows = rows[(rows["status"] == Status.ARRIVED) & (rows["delay_ns"] > limits_ns[rows["route"]])]
        return rows["route"], rows["t_ns"]

    def excuse(self, routes: Indexes, until_ns: int) -> None:
        """Let hits of probes on these routes, sent up to a moment, count for nothing: what caused them is over."""
        rows = self.rows[: int(self.rows["t_ns"].searchsorted(until_ns, "right"))]
        rows["status"][np.isin(rows["route"], routes)] = Status.UNKNOWN

    def _count(self, routes: OutcomeArray) -> Counts:
        return np.bincount(routes, minlength=self._routes).astype(np.float64)
