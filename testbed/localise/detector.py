"""A sequential test: accuses elements when hits of one kind (losses, or slow probes) leave no other explanation.

At each step windows of several lengths are looked at, because nobody knows when a fault began. An element is accused
when

- it gains at least ``log(columns / alpha)`` nats over everything known: then chance makes one such accusation in a
  healthy fabric with a probability of at most ``alpha`` at each look at a window;
- and explanations without it have less than ``1 - sure`` of the weight of all.

It is cleared when it has been healthy for a stated time, and the probes since its last hit speak against half of its
rate by ``1000 : 1``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np

from testbed.localise.elements import Counts, Elements, Indexes
from testbed.localise.focus import Candidate
from testbed.localise.likelihood import GRID, Evidence, log_ratio, rate_interval, scan
from testbed.localise.models import Model, explore, shares, survival

#: Chance of a false accusation at one look at one window, if the healthy model holds.
ALPHA = 1e-7
#: Least share of the weight of all explanations.
SURE = 0.999
#: An accusation so young is questioned again when more hits come in.
FRESH_NS = 3_000_000_000
#: A young accusation with less than this is withdrawn when something else is accused for the same hits.
_UNSURE = 0.01
_CLEAR_NATS = float(np.log(1000))
#: Candidates for further probes: within so many nats of the best, if that has gained the least.
_NEAR_NATS, _LEAST_NATS, _CANDIDATES = 9.0, 4.0, 24

#: Evidence of probes sent from one moment on, up to and including another (None: all).
Look = Callable[[int, int | None], Evidence]


@dataclass
class Accused:
    """An element that is accused: since when, from when on it was, how surely, and what it does."""

    column: int
    since_ns: int
    named_ns: int
    confidence: float
    last_hit_ns: int
    rate: tuple[float, float, float] = (0.0, 0.0, 1.0)
    probes: int = 0
    hit: int = 0


class Detector:
    """Tests for one kind of hit.

    Args:
        elements: what can be at fault.
        look: evidence of a window.
        hits: route and time of each hit since a moment, by time.
        excuse: have hits on some routes, up to a moment, count for nothing any more.
        spans_ns: lengths of the windows.
        background: from the evidence of a window to the probability that a probe without a fault is hit.
        least_rate: an element is accused only of hitting at least this share.
        weight: of each probe, below 1 where those sent together share their fate for reasons of the machine's.
        healthy_ns: how long an element must have been healthy to be cleared.
    """

    def __init__(
        self,
        elements: Elements,
        look: Look,
        hits: Callable[[int], tuple[Counts, Counts]],
        excuse: Callable[[Indexes, int], None],
        spans_ns: Sequence[int],
        background: Callable[[Evidence], float],
        *,
        least_rate: float = 0.0,
        weight: float = 1.0,
        healthy_ns: int,
    ) -> None:
        self._elements = elements
        self._look = look
        self._hits = hits
        self._excuse = excuse
        self._spans_ns = tuple(spans_ns)
        self._background = background
        self._least_rate = least_rate
        self._weight = weight
        self._healthy_ns = healthy_ns
        self.threshold = float(np.log(len(elements) / ALPHA))
        self.held: dict[int, Accused] = {}
        self.candidates: list[Candidate] = []

    def step(self, horizon_ns: int) -> tuple[list[Accused], list[Accused], list[Accused]]:
        """Look again; returns those newly accused, those withdrawn and those cleared."""
        cleared = [accused for accused in self.held.values() if self._is_cleared(accused, horizon_ns)]
        for accused in cleared:
            del self.held[accused.column]
            self._excuse(self._elements.of(accused.column)[0], accused.last_hit_ns)
        best_gain, best_start, best_column = 0.0, 0, -1
        self.candidates = []
        for start in self._starts(horizon_ns):
            evidence = self._seen(start, None)
            found = scan(self._elements, evidence, self._known(evidence))
            gain = float(found.gain.max())
            if gain > best_gain:
                best_gain, best_start, best_column = gain, start, int(found.gain.argmax())
                near = np.argsort(found.gain)[::-1][:_CANDIDATES]
                least = max(gain - _NEAR_NATS, _LEAST_NATS)
                likely, everywhere = found.rate >= self._least_rate, self._elements.everywhere
                self.candidates = [
                    Candidate(int(column), float(found.gain[column]), float(found.rate[column]))
                    for column in near
                    if found.gain[column] >= least and likely[column] and column != everywhere
                ]
        named: list[Accused] = []
        withdrawn: list[Accused] = []
        if best_gain >= self.threshold:
            named, withdrawn = self._judge(horizon_ns, best_start, best_column)
        for each in self.held.values():
            self._measure(each, horizon_ns)
        return named, withdrawn, cleared

    def _starts(self, horizon_ns: int) -> list[int]:
        """Where windows begin: at the first hit within each length, for what came before a fault is no evidence of it.

        Hits that those held may explain begin a window only where there is no other.
        """
        route, times = self._hits(horizon_ns - self._spans_ns[-1])
        if not len(times):
            return []
        explained = np.zeros(self._elements.routes, bool)
        for column in self.held:
            explained[self._elements.of(column)[0]] = True
        other = times[~explained[route]]
        found = set()
        for span in self._spans_ns:
            for kind in (other, times):
                place = int(kind.searchsorted(horizon_ns - span))
                if place < len(kind):
                    found.add(int(kind[place]))
                    break
        return sorted(found)

    def _judge(self, horizon_ns: int, start_ns: int, worst: int) -> tuple[list[Accused], list[Accused]]:
        """Weigh the explanations of a window, with young accusations in question again.

        So is one that has become worse: then it is itself the ``worst``, which explains most of what is left over.
        """
        fresh = {column for column, each in self.held.items() if horizon_ns - each.named_ns < FRESH_NS}
        fresh |= {worst} & self.held.keys()
        confidence, model, known = self._weigh(start_ns, fresh)
        accused = []
        for likeliest, rate in model.rates.items():
            column = self._named(likeliest)
            if column is None or rate < self._least_rate or confidence[column] < SURE:
                continue
            since = self._onset(column, known, start_ns)
            # Another fault may have begun the window. What came before this one must not decide what it is.
            sure = confidence[column] if since == start_ns else self._weigh(since, fresh)[0].get(column, 0.0)
            if sure < SURE:
                continue
            if column in self.held:
                self.held[column].confidence = sure
                if column == worst:
                    self.held[column].since_ns, self.held[column].hit = since, 0
            else:
                accused.append(Accused(column, since, horizon_ns, sure, since))
        withdrawn = []
        if accused:
            inside = [column for column in fresh if self.held[column].last_hit_ns >= start_ns]
            withdrawn = [self.held.pop(column) for column in inside if confidence.get(column, 0.0) < _UNSURE]
        for each in accused:
            self.held[each.column] = each
        return accused, withdrawn

    def _weigh(self, start_ns: int, fresh: Container[int]) -> tuple[dict[int, float], Model, Counts]:
        """How sure each column is, the heaviest model, and what was presumed."""
        evidence = self._seen(start_ns, None)
        known = self._known(evidence, besides=fresh)
        weighed = explore(self._elements, evidence, known, self.threshold)
        confidence: dict[int, float] = {}
        for model, weight in weighed:
            for column in {twin for each in model.rates for twin in self._elements.twins[each]}:
                confidence[column] = confidence.get(column, 0.0) + weight
        model = weighed[0][0] if weighed else Model({}, 0.0)
        for column, share in shares(self._elements, evidence, known, model).items():
            for twin in self._elements.twins[column]:
                confidence[twin] *= share
        return confidence, model, known

    def _named(self, column: int) -> int | None:
        """What stands for a column; none for every link alike, but where that cannot be told from an element."""
        if column != self._elements.everywhere:
            return column
        return next((twin for twin in self._elements.twins[column] if twin != column), None)

    def _seen(self, from_ns: int, until_ns: int | None) -> Evidence:
        """Evidence as it weighs."""
        raw = self._look(from_ns, until_ns)
        return raw if self._weight == 1 else Evidence(raw.probes * self._weight, raw.hit * self._weight)

    def _known(self, evidence: Evidence, besides: Container[int] = ()) -> Counts:
        """Per route the log-survival under the background and those held, but for some of them.

        Their rates are those of the time in which they hit: what they do no longer, or not yet, speaks for nothing.
        """
        background = np.full(self._elements.routes, np.log1p(-self._background(evidence)))
        rates = {column: each.rate[0] for column, each in self.held.items() if column not in besides}
        return survival(self._elements, background, rates)

    def _onset(self, column: int, base: Counts, from_ns: int) -> int:
        """When the first probe was sent that it hit: the hit from which on it explains most."""
        routes, _ = self._elements.of(column)
        route, times = self._hits(from_ns)
        mine = times[np.isin(route, routes)].astype(np.int64)[:32]
        gains = [scan(self._elements, self._seen(int(t), None), base).gain[column] for t in mine]
        return int(mine[int(np.argmax(gains))]) if len(mine) else from_ns

    def _measure(self, accused: Accused, horizon_ns: int) -> None:
        """Estimate the rate since the onset, up to the last hit where hits have ceased."""
        routes, _ = self._elements.of(accused.column)
        route, times = self._hits(max(accused.since_ns, horizon_ns - self._spans_ns[-1]))
        mine = times[np.isin(route, routes)]
        if len(mine):
            accused.last_hit_ns = max(accused.last_hit_ns, int(mine[-1]))
        ceased = horizon_ns - accused.last_hit_ns > self._healthy_ns // 2
        if accused.hit and ceased:
            return
        begin = max(accused.since_ns, horizon_ns - self._spans_ns[-1])
        evidence = self._seen(begin, accused.last_hit_ns)
        base = self._known(evidence, besides=(accused.column,))
        accused.rate = rate_interval(self._elements, evidence, base, accused.column)
        raw = self._look(begin, accused.last_hit_ns)
        accused.probes, accused.hit = int(raw.probes[routes].sum()), int(raw.hit[routes].sum())

    def _is_cleared(self, accused: Accused, horizon_ns: int) -> bool:
        if horizon_ns - accused.last_hit_ns < self._healthy_ns:
            return False
        rate = float(np.clip(accused.rate[0] / 2, GRID[0] / 2, 0.5))
        evidence = self._seen(accused.last_hit_ns + 1, None)
        known = self._known(evidence, besides=(accused.column,))
        return log_ratio(self._elements, evidence, known, accused.column, rate) <= -_CLEAR_NATS
