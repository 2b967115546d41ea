"""Opening a history: which database, brought to the newest tables, and what can be wrong with it."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from testbed.errors import InfrastructureError, UsageError

#: Of a machine's own history; a history that several share has a URL.
DEFAULT_FILE: Final = "history.sqlite"
_KINDS: Final = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
#: One writer at a time: any number that nothing else uses.
_LOCK: Final = 0x6D72_6374
_PATIENCE_S: Final = 30


def default_url() -> str:
    """``TESTBED_HISTORY``, or a file in the user's state folder."""
    given = os.environ.get("TESTBED_HISTORY")
    if given:
        return given
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return str(Path(state) / "mrc-testbed" / DEFAULT_FILE)


def open_database(place: str) -> Engine:
    """Connect to a database and bring its tables up to date.

    Args:
        place: a URL such as ``postgresql://user@host/name`` or ``sqlite:///file``, or the path of a SQLite file. A
            password belongs into PGPASSWORD or a password file, not into a command line.

    Raises:
        UsageError: no such kind of database, a URL that is none, or tables of a newer testbed.
        InfrastructureError: the database does not answer, or is damaged.

    """
    url = _url(place)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        _make_folder(url, shown)
    try:
        engine = create_engine(url, connect_args=_arguments(url), pool_pre_ping=True)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise UsageError(
            "the driver of this database is not installed",
            where=shown,
            found=str(error),
            remedy="pip install 'mrc-testbed[postgres]'",
        ) from None
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        # A write lock from the start: of two that open a new file, or add a run, at once, the second waits.
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            alone(connection)
            migrate(connection, shown)
    except SQLAlchemyError as error:
        engine.dispose()
        raise database_error(error, shown) from None
    except BaseException:
        engine.dispose()
        raise
    return engine


def alone(connection: Connection) -> None:
    """Let no other process write until this transaction ends.

    Two that add runs at once would both make the rows of a new test. SQLite's transactions hold its one write lock.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def migrate(connection: Connection, shown: str) -> None:
    """Bring the tables up to date. Raises UsageError for those of a newer testbed."""
    config = _config()
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current == script.get_current_head():
        return
    try:
        known = current is None or script.get_revision(current) is not None
    except CommandError:
        known = False
    if not known:
        raise UsageError(
            "this history was written by a newer testbed",
            where=shown,
            found=f"tables of version {current}",
            expected=f"at most {script.get_current_head()}",
            remedy="upgrade the testbed",
        )
    command.upgrade(config, "head")


def database_error(error: SQLAlchemyError, shown: str) -> InfrastructureError:
    """A database's error as a person can use it: its own words, without the statement."""
    words = str(error.orig) if isinstance(error, DBAPIError) and error.orig is not None else str(error)
    return InfrastructureError(
        "the history cannot be used",
        where=shown,
        found=words.strip().splitlines()[0][:300] if words.strip() else type(error).__name__,
        expected="a database that answers, and whose tables are whole",
        remedy="name another with --history, or restore this one from a copy",
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files("testbed_reports.history").joinpath("migrations")))
    config.set_main_option("path_separator", "os")
    return config


def _url(place: str) -> URL:
    if "://" not in place:
        return URL.create("sqlite", database=str(Path(place).expanduser().resolve()))
    try:
        url = make_url(place)
    except ArgumentError:
        raise UsageError("this is no URL of a database", where="--history", expected=_EXPECTED) from None
    kind = _KINDS.get(url.drivername.partition("+")[0])
    if kind is None:
        raise UsageError("no such kind of database", where="--history", found=url.drivername, expected=_EXPECTED)
    return url.set(drivername=kind)


_EXPECTED: Final = "postgresql://user@host/name, sqlite:///file, or the path of a SQLite file"


def _make_folder(url: URL, shown: str) -> None:
    if not url.database or url.database == ":memory:":
        raise UsageError("a history is kept in a file", where=shown, expected=_EXPECTED)
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            "the folder of this history cannot be made", where=shown, found=error.strerror or str(error)
        ) from None


def _arguments(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": _PATIENCE_S, "isolation_level": None}
    return {"connect_timeout": _PATIENCE_S}


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"):
        cursor.execute(statement)
    cursor.close()
