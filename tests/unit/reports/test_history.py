"""A history keeps runs, the same on both databases: once, whole, and comparable."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from testbed_reports.changes import changes, conditions_of_run
from testbed_reports.history.database import open_database
from testbed_reports.history.store import History
from testbed_reports.history.tables import Base

from testbed.errors import InfrastructureError, UsageError
from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from testbed.measure.run import RunRecord
from tests.unit.reports import postgres
from tests.unit.reports.nights import kept, night, put_result, test, with_values


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "deep" / "history.sqlite")
        return
    url = request.getfixturevalue("postgresql")
    yield url
    engine = open_database(url)
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
    engine.dispose()


@pytest.fixture
def history(place: str) -> Iterator[History]:
    with History.open(place) as opened:
        yield opened


def add(history: History, run: RunRecord, folder: Path) -> bool:
    return history.add(kept(run, folder))


def test_a_run_goes_in_once_and_comes_out_whole(history: History, tmp_path: Path) -> None:
    odd = test("a::ü ☃ 'x'; DROP TABLE run; --", Verdict.FAIL, reason="x" * 2000)
    run = night(1, [test("a::x"), odd, test("a::z", Verdict.NOT_RUN)], facts={"nos": "4.2"})
    assert add(history, run, tmp_path)
    assert not add(history, run, tmp_path)
    assert history.run(run.id) == run
    (row,) = history.runs()
    assert (row.passed, row.failed, row.not_run, row.verdict) == (1, 1, 1, "fail")
    assert row.created == run.created
    with pytest.raises(UsageError, match="another run with this id"):
        add(history, night(1, [test("a::x")], title="other"), tmp_path)


def test_the_run_before_is_of_the_same_suite_and_shares_a_test(history: History, tmp_path: Path) -> None:
    tests = [test("a::x"), test("a::y")]
    for run in (
        night(1, tests),
        night(2, [test("a::x"), test("a::y", Verdict.FAIL)]),
        night(3, tests, id="other-suite", suite="other"),
        night(4, [test("b::z")], id="nothing-shared"),
    ):
        add(history, run, tmp_path)
    now = night(5, tests)
    before = history.before(now)
    assert before is not None
    assert before.id == "night-002"
    since = history.last_pass(now)
    assert since is not None
    assert since.id == "night-001"
    assert changes(since.conditions, conditions_of_run(now)) == []
    assert history.before(night(0, tests)) is None


def test_each_test_knows_its_own_last_pass(history: History, reboot: Result, tmp_path: Path) -> None:
    for number, verdict, nos in ((1, Verdict.PASS, "4.0"), (2, Verdict.PASS, "4.1"), (3, Verdict.FAIL, "4.2")):
        result = with_values(reboot, {"failover": 0.02}, facts={"nos": nos}, id=f"r{number}")
        name = put_result(result, tmp_path, f"r{number}")
        add(history, night(number, [test("a::x", verdict, results=(name,)), test("a::y")]), tmp_path)
    found = history.last_passes(night(4, [test("a::x"), test("a::y")]))
    assert [(place[0], since.id, since.conditions["nos"]) for place, since in found.items()] == [
        ("a::x", "night-002", "4.1")
    ]


def test_figures_come_back_with_what_makes_them_figures(history: History, reboot: Result, tmp_path: Path) -> None:
    values = {"failover": 0.02, "outage": None, "loss_ratio": 1e-300}
    result = with_values(reboot, values)
    twice = (*result.figures, result.figures[0].model_copy(update={"value": 0.5, "at_least": True}))
    result = result.model_copy(update={"figures": twice})
    name = put_result(result, tmp_path, "r")
    add(history, night(1, [test("a::x", results=(name, name.replace("r/", "missing/")))]), tmp_path)
    found = {(figure, scope): record for (_, figure, scope), record in history.figures("night-001").items()}
    assert {place: record.value for place, record in found.items()} == {
        ("failover", "all"): 0.02,
        ("outage", "all"): None,
        ("loss_ratio", "all"): 1e-300,
        ("failover", "all #2"): 0.5,
    }
    assert found["failover", "all #2"].at_least
    assert found["failover", "all"].definition == "failover, as drawn for a test"
    assert history.runs()[0].uncounted == 1


def test_a_run_that_cannot_be_added_leaves_nothing(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("testbed_reports.history.adding.Adding._measurements", broken)
    with pytest.raises(RuntimeError):
        add(history, night(1, [test("a::x")]), tmp_path)
    assert history.runs() == []
    monkeypatch.undo()
    assert add(history, night(1, [test("a::x")]), tmp_path)


def test_forgotten_runs_are_gone_and_others_stay(history: History, reboot: Result, tmp_path: Path) -> None:
    for number in range(3):
        name = put_result(with_values(reboot, {"failover": 0.02}, id=f"r{number}"), tmp_path, f"r{number}")
        add(history, night(number, [test("a::x", results=(name,))]), tmp_path)
    assert history.forget(["night-000", "night-002", "never"]) == 2
    assert [run.id for run in history.runs()] == ["night-001"]
    assert history.figures("night-000") == {}
    assert len(history.figures("night-001")) == 1


def test_several_runners_add_at_once(place: str, tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def runner(number: int) -> None:
        try:
            with History.open(place) as own:
                for night_number in range(3):
                    run = night(night_number, [test("a::x"), test(f"b::{number}")], id=f"n{night_number}-r{number}")
                    add(own, run, tmp_path / str(number))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=runner, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with History.open(place) as own:
        assert len(own.runs()) == 12


def test_the_migrations_make_what_the_models_say(place: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = open_database(place)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)
    engine.dispose()
    assert found == []


def test_tables_of_a_newer_testbed_are_refused(place: str) -> None:
    engine = open_database(place)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UsageError, match=r"(?s)newer testbed.*9999.*upgrade the testbed"):
        History.open(place)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()


def test_an_unknown_run_names_the_nearest(history: History, tmp_path: Path) -> None:
    add(history, night(1, [test("a::x")]), tmp_path)
    with pytest.raises(UsageError, match=r"(?s)no such run.*nearest:\s+night-001"):
        history.run("nihgt-001")


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(InfrastructureError, match="not a database"):
        History.open(str(path))
    good = tmp_path / "good.sqlite"
    History.open(str(good)).engine.dispose()
    with sqlite3.connect(good) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("DROP TABLE measurement")
    connection.close()
    with pytest.raises(InfrastructureError, match="measurement"), History.open(str(good)) as history:
        history.figures("any")


@pytest.mark.parametrize("url", ["mysql://host/name", "://", "sqlite://", "sqlite:///:memory:"])
def test_what_is_no_history_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        History.open(url)


def test_no_password_is_shown(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError) as caught:
        History.open(f"postgresql://user:s3cret@/name?host={tmp_path}")
    assert "s3cret" not in str(caught.value)
