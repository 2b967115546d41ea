"""Series of a history, their changes, and alarms that are told once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import Final, NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from testbed_reports.changes import Change as Condition
from testbed_reports.changes import changes as conditions_changed
from testbed_reports.comparison import Key
from testbed_reports.history.database import alone
from testbed_reports.history.rows import finite
from testbed_reports.history.store import History
from testbed_reports.history.tables import Alarm, Conditions, Measurement, Outcome, Run, Series, Test
from testbed_reports.sources import part_name
from testbed_reports.trends.changepoints import MOST, SHORTEST, Change, find_all

#: Figures for which more is better; of all others less is, or neither.
MORE_IS_BETTER: Final = frozenset({"goodput", "messages", "mos", "r_factor"})
#: Figures that say how much was done, not how well: they follow the workload.
NEITHER: Final = frozenset(
    {"sent", "refused", "loss_distance_min", "loss_distance_p50", "messages", "plane_share", "outage_disagreement"}
)


class Point(NamedTuple):
    """One value of a series, and where it came from. A tuple: a rig's ninety nights have a million of them."""

    run_id: str
    created: datetime
    value: float
    resolution: float
    at_least: bool
    samples: int
    verdict: str
    conditions: str


@dataclass
class Trend:
    """A series with its values, oldest first, and what changed in it."""

    number: int
    test: int
    key: Key
    figure: str
    scope: str
    unit: str
    definition: str
    points: list[Point] = field(default_factory=list)
    #: Runs in which it was measured and could not be known.
    unknown: int = 0
    changes: list[Change] = field(default_factory=list)

    def direction(self, change: Change) -> str:
        """``better``, ``worse``, or ``other`` where nobody can say."""
        if self.figure in NEITHER:
            return "other"
        return "better" if (change.after > change.before) == (self.figure in MORE_IS_BETTER) else "worse"


@dataclass(frozen=True)
class Told:
    """An alarm: a change, and between which runs it came."""

    trend: Trend
    change: Change
    conditions: tuple[Condition, ...]
    new: bool

    @property
    def last(self) -> Point:
        """The last value that is surely of the old level."""
        return self.trend.points[max(self.change.low - 1, 0)]

    @property
    def first(self) -> Point:
        """The first value that is surely of the new level."""
        return self.trend.points[min(self.change.high, len(self.trend.points) - 1)]

    @property
    def direction(self) -> str:
        """As of its trend."""
        return self.trend.direction(self.change)


def read_trends(history: History, suite: str | None = None, most_runs: int = MOST) -> list[Trend]:
    """All series of the newest runs (of a suite), with their changes found."""
    trends: dict[int, Trend] = {}
    with Session(history.engine) as session:
        chosen = select(Run).order_by(Run.created.desc(), Run.id.desc()).limit(most_runs)
        if suite is not None:
            chosen = chosen.where(Run.suite == suite)
        about = {
            series.id: (series, test)
            for series, test in session.execute(select(Series, Test).join(Test, Test.id == Series.test_id))
        }
        # Run by run, the oldest first: every series gets its points in their order.
        for run in reversed(session.scalars(chosen).all()):
            _read_run(session, run, about, trends)
    found = [trend for trend in trends.values() if trend.points]
    for trend, changes in zip(found, find_all([[p.value for p in trend.points] for trend in found]), strict=True):
        trend.changes = [change for change in changes if _is_real(trend, change)]
    return sorted(found, key=lambda trend: (trend.key, trend.figure, trend.scope))


def _read_run(session: Session, run: Run, about: Mapping[int, tuple[Series, Test]], trends: dict[int, Trend]) -> None:
    """Add what was measured in one run to its series."""
    name, created, conditions = run.id, run.created, run.conditions
    # By the connection: a session's own way of giving rows takes twice as long.
    connection = session.connection()
    outcomes = connection.execute(select(Outcome.test_id, Outcome.verdict).where(Outcome.run_id == name))
    verdicts = {row.test_id: row.verdict for row in outcomes}
    columns = (Measurement.series_id, Measurement.value, Measurement.resolution)
    more = (Measurement.at_least, Measurement.samples)
    for number, value, resolution, at_least, samples in connection.execute(
        select(*columns, *more).where(Measurement.run_id == name)
    ):
        trend = trends.get(number)
        if trend is None:
            trend = trends[number] = _trend(*about[number])
        if value is None or not isfinite(value):
            trend.unknown += 1
            continue
        verdict = verdicts[trend.test]
        trend.points.append(
            Point(name, created, value, finite(resolution) or 0.0, at_least, samples, verdict, conditions)
        )


def _trend(series: Series, test: Test) -> Trend:
    return Trend(
        series.id,
        test.id,
        (test.name, test.lab, test.realised),
        series.figure,
        part_name(series.scope, series.part),
        series.unit,
        series.definition,
    )


def _is_real(trend: Trend, change: Change) -> bool:
    """Whether a change is larger than what the measurement can resolve."""
    near = trend.points[max(change.at - 20, 0) : change.at + 20]
    return abs(change.after - change.before) > max((point.resolution for point in near), default=0.0)


def tell(history: History, trends: Sequence[Trend], run_id: str) -> list[Told]:
    """Every change of these trends; ``new`` where this run is the first after which it is told.

    A change whose place moved a little as runs were added is the one that was told.
    """
    out = []
    with Session(history.engine) as session, session.begin():
        alone(session.connection())
        known: dict[int, list[Alarm]] = {}
        for alarm in session.scalars(select(Alarm)):
            known.setdefault(alarm.series_id, []).append(alarm)
        fresh = []
        for trend in (one for one in trends if one.changes):
            position = {point.run_id: number for number, point in enumerate(trend.points)}
            for change in trend.changes:
                told = [alarm for alarm in known.get(trend.number, []) if _same(alarm, change, position)]
                out.append(Told(trend, change, (), all(alarm.told_in == run_id for alarm in told)))
                if not told:
                    fresh.append(
                        {
                            "series_id": trend.number,
                            "first_run": trend.points[change.at].run_id,
                            "last_run": trend.points[change.at - 1].run_id,
                            "told_in": run_id,
                            "before": change.before,
                            "after": change.after,
                            "p_value": change.p_value,
                        }
                    )
        if fresh:
            session.execute(insert(Alarm), fresh)
        return _with_conditions(session, out)


def _same(alarm: Alarm, change: Change, position: dict[str, int]) -> bool:
    """Whether an alarm told this change: same direction, and places that overlap within a few runs."""
    if (alarm.after > alarm.before) != (change.after > change.before):
        return False
    at = position.get(alarm.first_run)
    return at is not None and change.low - SHORTEST <= at <= change.high + SHORTEST


def _with_conditions(session: Session, told: Iterable[Told]) -> list[Told]:
    """What else differs between the last run of the old level and the first of the new."""
    found = list(told)
    wanted = {point.conditions for one in found for point in (one.last, one.first)}
    content: dict[str, dict[str, str]] = {}
    for digest in wanted:
        row = session.get(Conditions, digest)
        content[digest] = {} if row is None else dict(row.content)
    return [
        Told(
            one.trend,
            one.change,
            tuple(conditions_changed(content[one.last.conditions], content[one.first.conditions])),
            one.new,
        )
        for one in found
    ]
