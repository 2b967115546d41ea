"""A history: runs go in once, and come out as what they were."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError
from sqlalchemy import Engine, delete, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from testbed.errors import InfrastructureError, UsageError, nearest
from testbed.measure.result_parts import FigureRecord, Verdict
from testbed.measure.run import RunRecord
from testbed.measure.texts import clipped
from testbed_reports.changes import Since
from testbed_reports.comparison import Figures, Key, key
from testbed_reports.history.adding import Adding
from testbed_reports.history.database import alone, database_error, open_database
from testbed_reports.history.rows import chunks, finite, tests_of, without_tests
from testbed_reports.history.tables import Alarm, Conditions, Measurement, Outcome, Run, Series, Test
from testbed_reports.sources import Source, part_name


class History:
    """An open history. A context manager: closes its connections."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.place = engine.url.render_as_string(hide_password=True)

    @classmethod
    def open(cls, place: str) -> Self:
        """Open or make one. Raises as :func:`open_database` does."""
        return cls(open_database(place))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.dispose()
        if isinstance(error, SQLAlchemyError):
            raise database_error(error, self.place) from None

    # -- in -----------------------------------------------------------------------------------------------------

    def add(self, source: Source) -> bool:
        """Keep a run, all of it or nothing; False where it is kept already.

        Raises UsageError where another run has the same id.
        """
        run = source.run
        with Session(self.engine) as session, session.begin():
            alone(session.connection())
            known = session.get(Run, run.id)
            if known is not None:
                if known.record != without_tests(run):
                    raise UsageError(
                        "another run with this id is in the history", where=str(source.file), found=f"id {run.id}"
                    )
                return False
            Adding(session, source).carry_out()
        return True

    def forget(self, ids: Iterable[str]) -> int:
        """Remove runs and what was measured in them; returns how many there were."""
        with Session(self.engine) as session, session.begin():
            removed = 0
            for chunk in chunks(list(ids)):
                for column in (Alarm.first_run, Alarm.last_run, Alarm.told_in):
                    session.execute(delete(Alarm).where(column.in_(chunk)))
                session.execute(delete(Measurement).where(Measurement.run_id.in_(chunk)))
                session.execute(delete(Outcome).where(Outcome.run_id.in_(chunk)))
                removed += session.execute(delete(Run).where(Run.id.in_(chunk))).rowcount  # type: ignore[attr-defined]
            return removed

    # -- out ----------------------------------------------------------------------------------------------------

    def runs(self, most: int | None = None) -> list[Run]:
        """Runs, the newest first."""
        with Session(self.engine, expire_on_commit=False) as session:
            return list(session.scalars(select(Run).order_by(Run.created.desc(), Run.id.desc()).limit(most)))

    def run(self, identity: str) -> RunRecord:
        """A run as its file had it, except for results and artefacts. Raises UsageError with the nearest."""
        with Session(self.engine) as session:
            found = session.get(Run, identity)
            if found is None:
                known = session.scalars(select(Run.id).order_by(Run.created.desc()).limit(1000))
                raise UsageError(
                    "no such run is in the history", where=self.place, found=identity, nearest=nearest(identity, known)
                )
            return _record(session, found)

    def before(self, run: RunRecord) -> RunRecord | None:
        """The newest earlier run of the same suite that has a test in common with it; None: there is none."""
        return self._newest(run, Run.suite == run.suite)

    def last_pass(self, run: RunRecord) -> Since | None:
        """The newest such run that was a pass."""
        found = self._newest(run, Run.suite == run.suite, Run.verdict == Verdict.PASS.value)
        return None if found is None else Since(found.id, found.created, self.conditions(found.id))

    def conditions(self, identity: str) -> dict[str, str]:
        """Under what a run went, by name; empty for one that is not here."""
        with Session(self.engine) as session:
            content = session.scalar(
                select(Conditions.content).join(Run, Run.conditions == Conditions.digest).where(Run.id == identity)
            )
        return dict(content or {})

    def last_passes(self, run: RunRecord) -> dict[Key, Since]:
        """Of each of a run's tests the last earlier pass whose conditions are known."""
        with Session(self.engine) as session:
            tests = tests_of(session, [key(test) for test in run.tests])
            newest = (
                select(Outcome.test_id, func.max(Run.created).label("created"))
                .join(Run, Run.id == Outcome.run_id)
                .where(Outcome.verdict == Verdict.PASS.value, Outcome.conditions.is_not(None))
                .where(Run.created < run.created, Run.id != run.id)
                .group_by(Outcome.test_id)
                .subquery()
            )
            rows = session.execute(
                select(Outcome.test_id, Run.id, Run.created, Conditions.content)
                .join(Run, Run.id == Outcome.run_id)
                .join(newest, (newest.c.test_id == Outcome.test_id) & (newest.c.created == Run.created))
                .join(Conditions, Conditions.digest == Outcome.conditions)
                .where(Outcome.verdict == Verdict.PASS.value)
            )
            named = {number: name for name, number in tests.items()}
            return {
                named[number]: Since(identity, created, dict(content))
                for number, identity, created, content in rows
                if number in named
            }

    def passed_in(self, names: Sequence[str], lab: str, most: int = 20) -> dict[str, list[float]]:
        """Test → how long it took in seconds when it passed on this lab, the last ``most`` times."""
        found: dict[str, list[float]] = {}
        with Session(self.engine) as session:
            for part in chunks(names):
                rows = session.execute(
                    select(Test.name, Outcome.duration_s)
                    .join(Outcome, Outcome.test_id == Test.id)
                    .join(Run, Run.id == Outcome.run_id)
                    .where(Test.name.in_(part), Test.lab == lab, Outcome.verdict == Verdict.PASS.value)
                    .order_by(Run.created.desc())
                )
                for name, duration in rows:
                    times = found.setdefault(name, [])
                    if len(times) < most:
                        times.append(duration)
        return found

    def figures(self, identity: str) -> Figures:
        """What was measured in a run."""
        with Session(self.engine) as session:
            rows = session.execute(
                select(Test, Series, Measurement)
                .join(Series, Series.test_id == Test.id)
                .join(Measurement, Measurement.series_id == Series.id)
                .where(Measurement.run_id == identity)
            )
            return {
                (
                    (test.name, test.lab, test.realised),
                    series.figure,
                    part_name(series.scope, series.part),
                ): FigureRecord(
                    name=series.figure,
                    value=finite(value.value),
                    unit=series.unit,
                    definition=series.definition,
                    samples=value.samples,
                    scope=series.scope,
                    resolution=finite(value.resolution),
                    at_least=value.at_least,
                )
                for test, series, value in rows
            }

    def _newest(self, run: RunRecord, *where: Any) -> RunRecord | None:
        with Session(self.engine) as session:
            mine = set(tests_of(session, [key(test) for test in run.tests]).values())
            earlier = session.scalars(
                select(Run)
                .where(Run.created < run.created, Run.id != run.id, *where)
                .order_by(Run.created.desc(), Run.id.desc())
                .limit(50)
            )
            for found in earlier:
                theirs = session.scalars(select(Outcome.test_id).where(Outcome.run_id == found.id))
                if mine.intersection(theirs):
                    return _record(session, found)
        return None


def _record(session: Session, found: Run) -> RunRecord:
    rows = session.execute(
        select(Test, Outcome)
        .join(Outcome, Outcome.test_id == Test.id)
        .where(Outcome.run_id == found.id)
        .order_by(Outcome.position)
    )
    tests = [
        {
            "name": test.name,
            "verdict": outcome.verdict,
            "reason": outcome.reason,
            "duration_s": outcome.duration_s,
            "lab": test.lab,
            "realised": test.realised,
        }
        for test, outcome in rows
    ]
    try:
        return RunRecord.model_validate_json(json.dumps(dict(found.record) | {"tests": tests}))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InfrastructureError(
            "a run of this history cannot be read",
            where=found.id,
            found=clipped(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200),
            expected="what a testbed wrote",
            remedy="restore the history from a copy, or name another with --history",
        ) from None
