"""The tables of a history, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: Names of constraints are ours, so that migrations can name them on either database.
_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
#: 64 bits on PostgreSQL; on SQLite the one type that numbers rows by itself.
_Id = BigInteger().with_variant(Integer(), "sqlite")


class _Utc(TypeDecorator[datetime]):
    """Times in UTC. SQLite forgets the zone; it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(naming_convention=_NAMES)


class Conditions(Base):
    """What a run or a test ran under, once for all that ran under the same."""

    __tablename__ = "conditions"
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


class Run(Base):
    """A run, by its id."""

    __tablename__ = "run"
    __table_args__ = (Index("ix_run_created", "created"),)
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    suite: Mapped[str] = mapped_column(String(200))
    created: Mapped[datetime] = mapped_column(_Utc())
    added: Mapped[datetime] = mapped_column(_Utc())
    duration_s: Mapped[float] = mapped_column(Double())
    runner: Mapped[str] = mapped_column(String(200))
    verdict: Mapped[str] = mapped_column(String(16))
    complete: Mapped[bool]
    tests: Mapped[int]
    passed: Mapped[int]
    failed: Mapped[int]
    unknown: Mapped[int]
    not_run: Mapped[int]
    unexplained: Mapped[int] = mapped_column(BigInteger())
    #: Results that do not know how many packets are unexplained.
    uncounted: Mapped[int]
    unhealed: Mapped[int]
    #: The run file as it was, without its tests: what pages and comparisons are made from.
    record: Mapped[dict[str, Any]] = mapped_column(JSON)
    conditions: Mapped[str] = mapped_column(ForeignKey("conditions.digest"))
    #: Where its files were when it was added; they may be gone.
    file: Mapped[str] = mapped_column(Text())


class Test(Base):
    """A test: a name on a lab that was made of something."""

    __test__ = False
    __tablename__ = "test"
    __table_args__ = (UniqueConstraint("name", "lab", "realised"),)
    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(500))
    lab: Mapped[str] = mapped_column(String(200))
    realised: Mapped[str] = mapped_column(String(16))


class Outcome(Base):
    """What became of a test in a run."""

    __tablename__ = "outcome"
    __table_args__ = (Index("ix_outcome_test_id", "test_id"),)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    test_id: Mapped[int] = mapped_column(ForeignKey("test.id"), primary_key=True)
    position: Mapped[int]
    verdict: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text())
    duration_s: Mapped[float] = mapped_column(Double())
    #: Of its first result; null where it left none.
    conditions: Mapped[str | None] = mapped_column(ForeignKey("conditions.digest"))


class Series(Base):
    """What is measured again and again: a figure of a test."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("test_id", "figure", "scope", "part"),)
    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    test_id: Mapped[int] = mapped_column(ForeignKey("test.id"))
    figure: Mapped[str] = mapped_column(String(200))
    scope: Mapped[str] = mapped_column(String(200))
    #: Which of the test's results it is of, from 0; and of several of one name and scope in it, which.
    part: Mapped[int]
    unit: Mapped[str] = mapped_column(String(200))
    definition: Mapped[str] = mapped_column(Text())


class Measurement(Base):
    """One value of a series."""

    __tablename__ = "measurement"
    __table_args__ = (Index("ix_measurement_run_id", "run_id"),)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    #: Null where it could not be known.
    value: Mapped[float | None] = mapped_column(Double())
    resolution: Mapped[float | None] = mapped_column(Double())
    at_least: Mapped[bool]
    samples: Mapped[int] = mapped_column(BigInteger())


class Alarm(Base):
    """A change point that was told, so that it is told once."""

    __tablename__ = "alarm"
    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    #: The first run of the new level, as far as can be told, and the last of the old.
    first_run: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    last_run: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    #: The run after which it was told.
    told_in: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    before: Mapped[float] = mapped_column(Double())
    after: Mapped[float] = mapped_column(Double())
    p_value: Mapped[float] = mapped_column(Double())
