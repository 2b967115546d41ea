"""A run on its way into a history: its results are read once, and what is asked for later is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from testbed.measure.result import Result
from testbed.measure.result_parts import FigureRecord, Verdict
from testbed_reports.changes import conditions_of_result, conditions_of_run
from testbed_reports.comparison import Key, key
from testbed_reports.history.rows import chunks, tests_of, without_tests
from testbed_reports.history.tables import Conditions, Measurement, Outcome, Run, Series, Test
from testbed_reports.sources import Source, lab_condition, whole_figures
from testbed_reports.sums import Sums
from testbed_reports.workers import spread


@dataclass
class _Read:
    """What is kept of one test's results."""

    sums: Sums = field(default_factory=Sums)
    labs: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, str] | None = None
    figures: list[tuple[FigureRecord, int]] = field(default_factory=list)


class Adding:
    """One run on its way in."""

    def __init__(self, session: Session, source: Source) -> None:
        self._session = session
        self._source = source
        self._kept: set[str] = set()

    def carry_out(self) -> None:
        """Write its rows."""
        run, session = self._source.run, self._session
        heavy = sum(bool(test.results) for test in run.tests)
        read = list(spread(_read, self._source, range(len(run.tests)), heavy))
        sums, conditions = Sums(), conditions_of_run(run)
        for one in read:
            sums.join(one.sums)
            conditions |= one.labs
        whole = sums.whole
        session.add(
            Run(
                id=run.id,
                title=run.title,
                suite=run.suite,
                created=run.created,
                added=datetime.now(UTC),
                duration_s=run.duration_s,
                runner=run.runner,
                verdict=run.verdict.value,
                complete=run.complete,
                tests=len(run.tests),
                passed=run.count(Verdict.PASS),
                failed=run.count(Verdict.FAIL),
                unknown=run.count(Verdict.UNKNOWN),
                not_run=run.count(Verdict.NOT_RUN),
                unexplained=whole.unexplained,
                uncounted=whole.uncounted + sums.unreadable,
                unhealed=whole.unhealed + whole.unclear,
                record=without_tests(run),
                conditions=self._conditions(conditions),
                file=str(self._source.file.resolve()),
            )
        )
        session.flush()
        numbers = self._tests([key(test) for test in run.tests])
        outcomes = [
            {
                "run_id": run.id,
                "test_id": numbers[key(test)],
                "position": position,
                "verdict": test.verdict.value,
                "reason": test.reason,
                "duration_s": test.duration_s,
                "conditions": None if one.conditions is None else self._conditions(one.conditions),
            }
            for position, (test, one) in enumerate(zip(run.tests, read, strict=True))
        ]
        if outcomes:
            session.execute(insert(Outcome), outcomes)
        self._measurements(numbers, read)

    def _tests(self, wanted: list[Key]) -> dict[Key, int]:
        known = tests_of(self._session, wanted)
        new = [
            {"name": name, "lab": lab, "realised": made} for name, lab, made in wanted if (name, lab, made) not in known
        ]
        if new:
            self._session.execute(insert(Test), new)
        return tests_of(self._session, wanted)

    def _measurements(self, numbers: Mapping[Key, int], read: Sequence[_Read]) -> None:
        session, run = self._session, self._source.run
        found = {
            (numbers[key(test)], figure.name, figure.scope, part): figure
            for test, one in zip(run.tests, read, strict=True)
            for figure, part in one.figures
        }
        known = self._series(found)
        rows = [
            {
                "series_id": known[place],
                "run_id": run.id,
                "value": figure.value,
                "resolution": figure.resolution,
                "at_least": figure.at_least,
                "samples": figure.samples,
            }
            for place, figure in found.items()
        ]
        if rows:
            session.execute(insert(Measurement), rows)

    def _series(self, wanted: Mapping[tuple[int, str, str, int], FigureRecord]) -> dict[tuple[int, str, str, int], int]:
        tests = sorted({place[0] for place in wanted})

        def look() -> dict[tuple[int, str, str, int], int]:
            out = {}
            for chunk in chunks(tests):
                rows = self._session.execute(
                    select(Series.test_id, Series.figure, Series.scope, Series.part, Series.id).where(
                        Series.test_id.in_(chunk)
                    )
                )
                out.update({(test, figure, scope, part): number for test, figure, scope, part, number in rows})
            return out

        known = look()
        new = [
            {
                "test_id": test,
                "figure": name,
                "scope": scope,
                "part": part,
                "unit": figure.unit,
                "definition": figure.definition,
            }
            for (test, name, scope, part), figure in wanted.items()
            if (test, name, scope, part) not in known
        ]
        if new:
            self._session.execute(insert(Series), new)
            known = look()
        return known

    def _conditions(self, content: dict[str, str]) -> str:
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        if digest not in self._kept and self._session.get(Conditions, digest) is None:
            self._session.add(Conditions(digest=digest, content=content))
            self._session.flush()
        self._kept.add(digest)
        return digest


def _read(source: Source, number: int) -> _Read:
    out = _Read()
    for part, found in enumerate(source.results(source.run.tests[number])):
        if not isinstance(found, Result):
            out.sums.unreadable += 1
            continue
        out.sums.add(found)
        out.labs |= lab_condition(found)
        if out.conditions is None:
            out.conditions = conditions_of_result(found)
        out.figures += whole_figures(found, part)
    return out
