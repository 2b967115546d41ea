"""The tables of the first version."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _column(name: str, kind: sa.types.TypeEngine[Any], *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable)


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=f"pk_{table}")


def _of(table: str, column: str, other: str, to: str, *, cascade: bool = False) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{other}"
    return sa.ForeignKeyConstraint([column], [f"{other}.{to}"], name=name, ondelete="CASCADE" if cascade else None)


def upgrade() -> None:
    """Make the tables."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "conditions", _column("digest", sa.String(64)), _column("content", sa.JSON()), _key("conditions", "digest")
    )
    op.create_table(
        "test",
        _column("id", _ID),
        _column("name", sa.String(500)),
        _column("lab", sa.String(200)),
        _column("realised", sa.String(16)),
        _key("test", "id"),
        sa.UniqueConstraint("name", "lab", "realised", name="uq_test_name_lab_realised"),
    )
    op.create_table(
        "run",
        _column("id", sa.String(128)),
        _column("title", sa.String(200)),
        _column("suite", sa.String(200)),
        _column("created", time),
        _column("added", time),
        _column("duration_s", sa.Double()),
        _column("runner", sa.String(200)),
        _column("verdict", sa.String(16)),
        _column("complete", sa.Boolean()),
        *(_column(name, sa.Integer()) for name in ("tests", "passed", "failed", "unknown", "not_run")),
        _column("unexplained", sa.BigInteger()),
        _column("uncounted", sa.Integer()),
        _column("unhealed", sa.Integer()),
        _column("record", sa.JSON()),
        _column("conditions", sa.String(64)),
        _column("file", sa.Text()),
        _of("run", "conditions", "conditions", "digest"),
        _key("run", "id"),
    )
    op.create_index("ix_run_created", "run", ["created"])
    op.create_table(
        "series",
        _column("id", _ID),
        _column("test_id", _ID),
        _column("figure", sa.String(200)),
        _column("scope", sa.String(200)),
        _column("part", sa.Integer()),
        _column("unit", sa.String(200)),
        _column("definition", sa.Text()),
        _of("series", "test_id", "test", "id"),
        _key("series", "id"),
        sa.UniqueConstraint("test_id", "figure", "scope", "part", name="uq_series_test_id_figure_scope_part"),
    )
    op.create_table(
        "outcome",
        _column("run_id", sa.String(128)),
        _column("test_id", _ID),
        _column("position", sa.Integer()),
        _column("verdict", sa.String(16)),
        _column("reason", sa.Text()),
        _column("duration_s", sa.Double()),
        _column("conditions", sa.String(64), nullable=True),
        _of("outcome", "run_id", "run", "id", cascade=True),
        _of("outcome", "test_id", "test", "id"),
        _of("outcome", "conditions", "conditions", "digest"),
        _key("outcome", "run_id", "test_id"),
    )
    op.create_index("ix_outcome_test_id", "outcome", ["test_id"])
    op.create_table(
        "measurement",
        _column("series_id", _ID),
        _column("run_id", sa.String(128)),
        _column("value", sa.Double(), nullable=True),
        _column("resolution", sa.Double(), nullable=True),
        _column("at_least", sa.Boolean()),
        _column("samples", sa.BigInteger()),
        _of("measurement", "series_id", "series", "id"),
        _of("measurement", "run_id", "run", "id", cascade=True),
        _key("measurement", "series_id", "run_id"),
    )
    op.create_index("ix_measurement_run_id", "measurement", ["run_id"])
    op.create_table(
        "alarm",
        _column("id", _ID),
        _column("series_id", _ID),
        *(_column(name, sa.String(128)) for name in ("first_run", "last_run", "told_in")),
        *(_column(name, sa.Double()) for name in ("before", "after", "p_value")),
        _of("alarm", "series_id", "series", "id"),
        *(_of("alarm", name, "run", "id", cascade=True) for name in ("first_run", "last_run", "told_in")),
        _key("alarm", "id"),
    )


def downgrade() -> None:
    """Remove them."""
    for table in ("alarm", "measurement", "outcome", "series", "run", "test", "conditions"):
        op.drop_table(table)
