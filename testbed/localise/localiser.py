"""From outcomes of probes to suspects: losses and slow probes side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from testbed.localise.detector import Accused, Detector
from testbed.localise.elements import Counts, Elements
from testbed.localise.focus import Focus, questions, watches
from testbed.localise.likelihood import Evidence
from testbed.localise.routes import OutcomeArray, Route, Status
from testbed.localise.suspects import Change, FaultClass, Suspect, What
from testbed.localise.window import Window

#: A probe on healthy links is lost with less than this probability. Ours: it stands for what no counter explains.
BACKGROUND = 2e-5
#: A delay is accused where at least this share of the probes is slow.
SLOW_RATE = 0.8
#: A probe is slow when it took so many times what such probes take, and the allowance on top.
SLOWER = 3.0
_SLOW_BACKGROUND = (0.02, 0.3)
_KEEP_NS, _SHORTEST_NS, _SHORTEST_SLOW_NS = 10_000_000_000, 200_000_000, 1_000_000_000
_TYPICAL_NS = 2_000_000_000
#: Fewer lost probes are no black hole yet, and none that surely lets more than one in a hundred through is one.
_BLACK_HOLE_PROBES, _BLACK_HOLE_RATE = 5, 0.99


class Localiser:
    """Names what is at fault on the way of probes.

    Args:
        routes: the ways of the probes, by number.
        cycle_ns: in which every route is probed at least once.
        allowance_ns: per route, what queues on its way may add to the delay though nothing is at fault.
        healthy_ns: how long an element must have been healthy to be cleared.
        together: probes of a host that are sent at one moment. What delays one of them for reasons of the machine's
            delays them all: of a delay they tell as much as one probe.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        cycle_ns: int,
        allowance_ns: Sequence[int],
        healthy_ns: int = 2_000_000_000,
        together: int = 1,
    ) -> None:
        self.elements = Elements(routes)
        self._allowance_ns = np.array(allowance_ns, np.float64)
        self._lengths = np.array([len(route.hops) for route in routes])
        keep_ns = max(_KEEP_NS, 3 * cycle_ns, 2 * healthy_ns)
        self._window = Window(len(routes), keep_ns)
        self._typical_ns: Counts = np.zeros(len(routes))
        self._limits_ns: Counts = self._allowance_ns.copy()
        window = self._window
        self._loss = Detector(
            self.elements,
            window.lost,
            window.losses,
            window.excuse,
            list(_spans(max(_SHORTEST_NS, cycle_ns // 2), keep_ns)),
            lambda _: BACKGROUND,
            healthy_ns=healthy_ns,
        )
        self._delay = Detector(
            self.elements,
            lambda since, until: window.slow(since, until, self._limits_ns),
            lambda since: window.slow_ones(since, self._limits_ns),
            window.excuse,
            list(_spans(max(_SHORTEST_SLOW_NS, 2 * cycle_ns), keep_ns)),
            _slow_background,
            least_rate=SLOW_RATE,
            weight=1 / together,
            healthy_ns=healthy_ns,
        )
        self._said: dict[tuple[bool, int], Suspect] = {}

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """Everything accused now, in the order in which it was named."""
        return tuple(self._said.values())

    def add(self, rows: OutcomeArray, horizon_ns: int) -> None:
        """Take outcomes in. Every probe sent before ``horizon_ns`` (CLOCK_REALTIME) has to be among those so far."""
        self._window.add(rows, horizon_ns)

    def step(self, now_ns: int | None = None) -> list[Change]:
        """Judge what is known up to the horizon; ``now_ns``: when that is, by default the horizon."""
        horizon = self._window.horizon_ns
        said = horizon if now_ns is None else now_ns
        self._learn_delays(horizon)
        changes: list[Change] = []
        for slow, detector in ((False, self._loss), (True, self._delay)):
            accused, withdrawn, cleared = detector.step(horizon)
            for what, gone in ((What.WITHDRAWN, withdrawn), (What.CLEARED, cleared)):
                changes += [Change(what, self._said.pop((slow, each.column)), said) for each in gone]
            new = {each.column for each in accused}
            for each in detector.held.values():
                changes += self._say(slow, each, each.column in new, said)
        return changes

    def focus(self) -> Focus:
        """Routes that would tell more about what is in question, and what share of the probes they are worth."""
        candidates = [*self._loss.candidates, *self._delay.candidates]
        if candidates:
            return questions(self.elements, candidates, BACKGROUND)
        # What is held is only to be cleared some day; until then other faults are to be found as soon as ever.
        held = dict.fromkeys([*self._loss.held, *self._delay.held])
        return watches(self.elements, list(held)) if held else Focus()

    def _say(self, slow: bool, accused: Accused, new: bool, said_ns: int) -> Iterator[Change]:
        suspect = self._suspect(slow, accused)
        before = self._said.get((slow, accused.column))
        self._said[slow, accused.column] = suspect
        if new:
            yield Change(What.ACCUSED, suspect, said_ns)
        elif before is not None and before.fault is not suspect.fault:
            yield Change(What.REVISED, suspect, said_ns)

    def _suspect(self, slow: bool, accused: Accused) -> Suspect:
        first, *others = self.elements.groups[accused.column]
        twins = [each for each in self.elements.twins[accused.column] if each != accused.column]
        others += [element for twin in twins for element in self.elements.groups[twin]]
        rate, lo, hi = accused.rate
        # Not all of them: while it comes and goes, some probes pass where others no longer do.
        whole = accused.hit >= _BLACK_HOLE_PROBES and hi >= _BLACK_HOLE_RATE
        loss = FaultClass.BLACK_HOLE if whole else FaultClass.PARTIAL
        return Suspect(
            element=first,
            fault=FaultClass.DELAY if slow else loss,
            rate=rate,
            rate_lo=lo,
            rate_hi=hi,
            delay_s=self._added_delay(accused) if slow else 0.0,
            confidence=accused.confidence,
            since_ns=accused.since_ns,
            named_ns=accused.named_ns,
            probes=accused.probes,
            hit=accused.hit,
            instead=tuple(others),
        )

    def _added_delay(self, accused: Accused) -> float:
        rows = self._window.sent(accused.since_ns)
        mine = np.isin(rows["route"], self.elements.of(accused.column)[0]) & (rows["status"] == Status.ARRIVED)
        rows = rows[mine]
        rows = rows[rows["delay_ns"] > self._limits_ns[rows["route"]]]
        return float(np.median(rows["delay_ns"] - self._typical_ns[rows["route"]])) * 1e-9 if len(rows) else 0.0

    def _learn_delays(self, horizon_ns: int) -> None:
        """What probes over so many links take now: of the routes' means the median, each route counted once.

        It is not moved by the few routes that a fault delays, however often they are probed because of it.
        """
        rows = self._window.sent(horizon_ns - _TYPICAL_NS)
        rows = rows[rows["status"] == Status.ARRIVED]
        routes = rows["route"]
        counts = np.bincount(routes, minlength=len(self._lengths))
        totals = np.bincount(routes, rows["delay_ns"], len(self._lengths))
        for length in np.unique(self._lengths):
            same = self._lengths == length
            seen = same & (counts > 0)
            if seen.any():
                self._typical_ns[same] = np.median(totals[seen] / counts[seen])
        self._limits_ns = SLOWER * self._typical_ns + self._allowance_ns


def _spans(shortest_ns: int, longest_ns: int) -> Iterator[int]:
    while shortest_ns < longest_ns * 0.75:
        yield shortest_ns
        shortest_ns *= 2
    yield longest_ns


def _slow_background(evidence: Evidence) -> float:
    """More than the share of all probes that are slow: then a busy machine delays no link more than another."""
    share = 1.5 * evidence.hit.sum() / max(evidence.probes.sum(), 1.0)
    return float(np.clip(share, *_SLOW_BACKGROUND))
