"""The database of leases: one transaction after the other, on disk when it returns, none waited for without end."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from testbed.errors import InfrastructureError, UnsupportedError, UsageError
from testbed.leases import tables

T = TypeVar("T")

DATABASE_VARIABLE: Final = "TESTBED_LEASES"
#: For one transaction, waiting for others included.
DEFAULT_TIMEOUT_S: Final = 10.0
#: Of PostgreSQL's advisory locks: this one is held by whoever is in a transaction on the tables of leases.
_LOCK: Final = 0x6D72_632D
_SQLITE_NOW: Final = "(julianday('now') - 2440587.5) * 86400.0"
_POSTGRES_NOW: Final = "extract(epoch from clock_timestamp())::double precision"


def default_url() -> str:
    """$TESTBED_LEASES, or else a file below XDG_STATE_HOME."""
    told = os.environ.get(DATABASE_VARIABLE)
    if told:
        return told
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    folder = state if state.is_absolute() else Path.home() / ".local" / "state"
    return f"sqlite:///{folder / 'mrc-testbed' / 'leases.sqlite'}"


class Transaction:
    """A transaction under way; nobody else's is, on any machine."""

    def __init__(self, connection: sa.Connection, now: float) -> None:
        self._connection = connection
        #: The database's clock.
        self.now = now

    def execute(self, statement: sa.Executable) -> sa.CursorResult[Any]:
        """Carry out a statement."""
        return self._connection.execute(statement)


class Database:
    """Leases and changes in SQLite (one machine) or PostgreSQL (many). Safe to use from several threads.

    Args:
        url: ``sqlite:////PATH`` or ``postgresql://USER@HOST/NAME``.
        timeout_s: a transaction that takes longer fails, whatever the server does.
    """

    def __init__(self, url: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.url = url or default_url()
        self.timeout_s = timeout_s
        self._engine = self._made()
        self._ready = False
        self._lock = threading.Lock()
        # SQLite lets nobody queue: threads of one process would look whether it is free, and sleep, and look.
        self._serial = threading.Lock() if self._engine.dialect.name == "sqlite" else contextlib.nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shown(self) -> str:
        """The URL without a password, for people."""
        return self._engine.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Let go of it."""
        self._engine.dispose()

    def run(self, work: Callable[[Transaction], T]) -> T:
        """Carry out one transaction, whole or not at all, and on disk when this returns.

        Raises what ``work`` raises, and InfrastructureError where the database does not answer in time; it is then not
        known whether the transaction was carried out.
        """
        outcome: list[tuple[T | None, BaseException | None]] = []
        given_up = threading.Event()

        def carry_out() -> None:
            try:
                with self._serial:
                    outcome.append((self._transact(work, given_up), None))
            except BaseException as error:
                outcome.append((None, error))

        # A server that hangs would keep its client for good: so the client is a thread that may be left behind.
        thread = threading.Thread(target=carry_out, name="leases", daemon=True)
        thread.start()
        thread.join(self.timeout_s)
        if not outcome:
            given_up.set()
            raise InfrastructureError(
                "the database of leases does not answer", where=self.shown, expected=f"within {self.timeout_s:g} s"
            )
        result, error = outcome[0]
        if isinstance(error, SQLAlchemyError):
            # Without its text about parameters: they are of no use to anybody here.
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()
            raise InfrastructureError(
                "the database of leases cannot be used", where=self.shown, found=cause[0] if cause else ""
            ) from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # The work's own, None included.

    def _transact(self, work: Callable[[Transaction], T], given_up: threading.Event) -> T:
        self._make_tables()
        with self._engine.connect() as connection:
            try:
                with connection.begin():
                    if connection.dialect.name == "postgresql":
                        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                    return work(Transaction(connection, self._now(connection)))
            finally:
                if given_up.is_set():
                    # Nobody may be there any more to whom it could go back.
                    with contextlib.suppress(SQLAlchemyError):
                        connection.detach()

    def _now(self, connection: sa.Connection) -> float:
        clock = _POSTGRES_NOW if connection.dialect.name == "postgresql" else _SQLITE_NOW
        return float(connection.execute(sa.text(f"select {clock}")).scalar_one())

    def _make_tables(self) -> None:
        with self._lock:
            if self._ready:
                return
            with self._engine.connect() as connection, connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                tables.metadata.create_all(connection)
            self._ready = True

    def _made(self) -> sa.Engine:
        try:
            url = sa.make_url(self.url)
        except SQLAlchemyError:
            raise UsageError(
                "this is not a database of leases", expected="sqlite:////PATH or postgresql://USER@HOST/NAME"
            ) from None
        seconds = max(1, round(self.timeout_s))
        if url.drivername == "sqlite":
            return _sqlite(url, seconds)
        if url.drivername in ("postgresql", "postgresql+psycopg"):
            try:
                return sa.create_engine(
                    url.set(drivername="postgresql+psycopg"),
                    pool_size=2,
                    max_overflow=-1,
                    pool_pre_ping=True,
                    connect_args={
                        "connect_timeout": seconds,
                        "application_name": "mrc-testbed",
                        "options": f"-c statement_timeout={seconds}s -c synchronous_commit=on",
                    },
                )
            except ImportError:
                raise UnsupportedError(
                    "leases in PostgreSQL need psycopg", remedy="pip install 'mrc-testbed[postgres]'"
                ) from None
        raise UsageError(
            "leases are kept in SQLite or PostgreSQL", found=url.drivername, expected="sqlite or postgresql"
        )


def _sqlite(url: sa.URL, seconds: int) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise UsageError("leases are kept in a file", found=str(url), expected="sqlite:////PATH")
    path = Path(url.database).expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            "the database of leases cannot be made", where=str(path), found=error.strerror or str(error)
        ) from None
    engine = sa.create_engine(
        url.set(database=str(path)), poolclass=NullPool, connect_args={"timeout": seconds, "isolation_level": None}
    )

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        # The lock before anything is read: what is read then still holds when it is acted upon.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
