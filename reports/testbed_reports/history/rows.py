"""Small steps between rows of a history and records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from testbed.measure.run import RunRecord
from testbed_reports.comparison import Key
from testbed_reports.history.tables import Test

_BATCH: Final = 400
_T = TypeVar("_T")


def without_tests(run: RunRecord) -> dict[str, Any]:
    """A run file's content but for its tests."""
    found: dict[str, Any] = run.model_dump(mode="json", by_alias=True, exclude={"tests"})
    return found


def tests_of(session: Session, wanted: Sequence[Key]) -> dict[Key, int]:
    """The numbers of those tests that are known."""
    out: dict[Key, int] = {}
    for chunk in chunks(wanted):
        rows = session.execute(
            select(Test.name, Test.lab, Test.realised, Test.id).where(
                tuple_(Test.name, Test.lab, Test.realised).in_(chunk)
            )
        )
        out.update({(name, lab, realised): number for name, lab, realised, number in rows})
    return out


def finite(value: float | None) -> float | None:
    """A number, or None for what is none: databases hold infinities, and others than we write to them."""
    return value if value is not None and math.isfinite(value) else None


def chunks(values: Sequence[_T]) -> Iterable[Sequence[_T]]:
    """Few enough for one statement's parameters."""
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))
