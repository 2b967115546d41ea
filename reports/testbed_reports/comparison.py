"""Two runs side by side: what is newly not run, newly failing, put right, and which figures moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from testbed.measure.result_parts import FigureRecord, Verdict
from testbed.measure.run import RunRecord, TestRecord
from testbed_reports.changes import Change, changes, conditions_of_run

#: (name, lab, realised): what makes tests of two runs the same.
Key = tuple[str, str, str]
#: Verdicts of tests that ran.
RAN: Final = frozenset({Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN})
ABSENT: Final = "absent from this run"


@dataclass(frozen=True)
class Pair:
    """One test in both runs; None where a run has none of that name."""

    key: Key
    before: TestRecord | None
    now: TestRecord | None

    @property
    def name(self) -> str:
        """The test's name."""
        return self.key[0]

    @property
    def reason(self) -> str:
        """What the later run says of it."""
        return ABSENT if self.now is None else self.now.reason


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs, each list in the order of the tests.

    Attributes:
        not_run: ran before, and did not now, or are absent.
        failing: fail now, and did not before.
        unknown: are unknown now, and were a pass.
        fixed: pass now, and failed or were unknown.
        running: ran now, and did not before.
        changes: conditions of the whole runs.
    """

    before: RunRecord
    now: RunRecord
    not_run: tuple[Pair, ...]
    failing: tuple[Pair, ...]
    unknown: tuple[Pair, ...]
    fixed: tuple[Pair, ...]
    running: tuple[Pair, ...]
    changes: tuple[Change, ...]

    @property
    def verdict(self) -> Verdict:
        """That of the later run; a fail where something that ran is not run any more."""
        return Verdict.FAIL if self.not_run else self.now.verdict


def key(test: TestRecord) -> Key:
    """What makes it the same test in another run."""
    return test.name, test.lab, test.realised


def compare(before: RunRecord, now: RunRecord) -> Comparison:
    """Compare two runs by the names of their tests, their labs, and what those were made of."""
    earlier = {key(test): test for test in before.tests}
    later = {key(test): test for test in now.tests}
    pairs = [Pair(each, earlier.get(each), later.get(each)) for each in dict.fromkeys([*later, *earlier])]

    def chosen(was: frozenset[Verdict | None], became: frozenset[Verdict | None]) -> tuple[Pair, ...]:
        return tuple(pair for pair in pairs if _verdict(pair.before) in was and _verdict(pair.now) in became)

    idle = frozenset({Verdict.NOT_RUN, None})
    return Comparison(
        before,
        now,
        not_run=chosen(frozenset(RAN), idle),
        failing=chosen(frozenset({*Verdict, None}) - {Verdict.FAIL}, frozenset({Verdict.FAIL})),
        unknown=chosen(frozenset({Verdict.PASS}), frozenset({Verdict.UNKNOWN})),
        fixed=chosen(frozenset({Verdict.FAIL, Verdict.UNKNOWN}), frozenset({Verdict.PASS})),
        running=chosen(idle, frozenset(RAN)),
        changes=tuple(changes(conditions_of_run(before), conditions_of_run(now))),
    )


def _verdict(test: TestRecord | None) -> Verdict | None:
    return None if test is None else test.verdict


#: Figures of one run: (key of the test, name, scope) → figure.
Figures = Mapping[tuple[Key, str, str], FigureRecord]


@dataclass(frozen=True)
class Moved:
    """One figure in both runs."""

    key: Key
    before: FigureRecord
    now: FigureRecord

    @property
    def ratio(self) -> float | None:
        """Now over before; None where either is unknown or the earlier one is 0."""
        if self.before.value is None or self.now.value is None or not self.before.value:
            return None
        return self.now.value / self.before.value


def moved(before: Figures, now: Figures) -> Iterator[Moved]:
    """Figures that differ by more than both could have resolved, or that only one of the runs knows.

    Two runs tell nothing of how much a figure varies from run to run: that is what trends are for.
    """
    for place in sorted(before.keys() & now.keys()):
        one, other = before[place], now[place]
        if one.value is None or other.value is None:
            if (one.value is None) != (other.value is None):
                yield Moved(place[0], one, other)
        elif abs(other.value - one.value) > max(one.resolution or 0.0, other.resolution or 0.0):
            yield Moved(place[0], one, other)
