"""Leases in SQLite and in PostgreSQL: one holder, whatever happens to runners, databases and clocks."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.errors import InfrastructureError, UsageError
from testbed.leases import (
    BusyError,
    Database,
    HeldLease,
    Journal,
    LeaseLostError,
    Leases,
    UnhealthyError,
)
from tests.rig.databases import Postgres
from tests.rig.lease_agent import device
from tests.rig.sshd import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def leases(database_url: str) -> Iterator[Leases]:
    with Database(database_url) as database:
        yield Leases(database)


@contextlib.contextmanager
def agent(url: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A runner of its own; killed at the end."""
    argv = [sys.executable, "-m", "tests.rig.lease_agent", url, *map(str, arguments)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.timeout(600)
def test_two_runners_race_for_a_rig_a_thousand_times_and_never_both_have_it(database_url: str, tmp_path: Path) -> None:
    witness, won = tmp_path / "held", [0, 0]
    with agent(database_url, "race", "r", witness) as one, agent(database_url, "race", "r", witness) as other:
        both = (one, other)
        assert [line(process) for process in both] == [["ready"], ["ready"]]
        for number in range(1000):
            for process in both if number % 2 else both[::-1]:
                say(process)
            came = [line(process) for process in both]
            assert sorted(came) == [["busy"], ["had", "it"]], f"round {number}"
            winner = came.index(["had", "it"])
            won[winner] += 1
            say(both[winner])
            assert line(both[winner]) == ["released"]
    assert sum(won) == 1000
    assert min(won) > 0, "a race that one of them always wins is none"


def test_a_killed_runners_rig_is_free_after_expiry_and_healing_and_its_number_is_worth_nothing(
    database_url: str, leases: Leases
) -> None:
    with agent(database_url, "hold", "r", 0.5) as runner:
        word, token = line(runner)
        assert word == "held"
        with pytest.raises(BusyError, match=r"(?s)r: this rig is held by somebody else.*expires in"):
            leases.take(["r"], ttl_s=1)
        old = leases.find("r")
        runner.kill()
        killed = time.monotonic()
    journal = Journal(leases.database)
    with HeldLease.take(leases, ["r"], wait_s=30, healing=True) as healing:
        assert 0.9 < time.monotonic() - killed < 20, "not before it has expired, and soon after"
        assert healing.token("r") > int(token)
        with pytest.raises(LeaseLostError):
            leases.require(old.id, "r", int(token))
        with pytest.raises(LeaseLostError):
            leases.renew(old.id, 10)
        (entry,) = journal.to_undo("r")
        assert (entry.node, entry.what, entry.state, dict(entry.inverse)) == (
            "h0",
            "a change",
            "made",
            {"kind": "none"},
        )
        leases.release(healing.facts.id)
        with pytest.raises(UnhealthyError, match=r"(?s)before it is healed.*1 changes"):
            leases.take(["r"], ttl_s=1)
        journal.note(entry.id, "undone")
    leases.release(leases.take(["r"], ttl_s=1).id)


@pytest.mark.parametrize("how", ["the runner is paused", "the database hangs"])
def test_a_runner_that_cannot_renew_touches_nothing_after_one_heartbeat(postgres_server: Postgres, how: str) -> None:
    heartbeat = 1.5
    with agent(postgres_server.new_database(), "hold", "r", heartbeat) as runner:
        assert line(runner)[0] == "held"
        line(runner)
        if how == "the runner is paused":
            runner.send_signal(signal.SIGSTOP)
            parted = time.monotonic()
            # Until others may have the rig: before that a renewal as it wakes would make the lease good again. A wait
            # for time alone, which is what is tested.
            threading.Event().wait(3.5 * heartbeat)
            resumed = time.monotonic()
            runner.send_signal(signal.SIGCONT)
        else:
            postgres_server.signal(signal.SIGSTOP)
            parted = resumed = time.monotonic()
        try:
            last, refused = parted, 0.0
            while not refused:
                word, at, *_ = line(runner)
                if word == "touched" and (float(at) <= resumed or how != "the runner is paused"):
                    last = max(last, float(at))
                elif word == "touched":
                    # At most what was already decided when it was stopped: one touch, said after the pause.
                    last = max(last, parted)
                else:
                    refused = float(at)
        finally:
            postgres_server.signal(signal.SIGCONT)
    assert last - parted <= heartbeat
    if how == "the database hangs":
        assert refused - parted <= 2 * heartbeat


def test_a_lease_given_back_or_taken_away_is_noticed_at_the_next_change(leases: Leases) -> None:
    journal = Journal(leases.database)
    with HeldLease.take(leases, ["r"]) as lease:
        change = journal.begin(lease, device("r"), "a change", {"kind": "none"})
        change.require_ours()
        leases.release(lease.facts.id)
        with leases_taken(leases, healing=True):
            with pytest.raises(LeaseLostError, match=r"released or taken away"):
                change.require_ours()
            with pytest.raises(LeaseLostError):
                journal.begin(lease, device("r"), "another", {"kind": "none"})
            with pytest.raises(LeaseLostError):
                lease.guard()
        assert len(journal.to_undo("r")) == 1
    with pytest.raises(LeaseLostError, match="no part of it"):
        lease.token("other")


@contextlib.contextmanager
def leases_taken(leases: Leases, *names: str, healing: bool = False) -> Iterator[None]:
    taken = leases.take(names or ["r"], ttl_s=60, healing=healing)
    try:
        yield
    finally:
        leases.release(taken.id)


def test_a_lease_is_renewed_for_as_long_as_it_is_held(leases: Leases) -> None:
    with HeldLease.take(leases, ["r"], heartbeat_s=1.0) as lease:
        first = leases.find("r").expires
        until(lambda: leases.find("r").expires > first + 2, "it is renewed")
        lease.require("r")
        with pytest.raises(BusyError):
            leases.take(["r"], ttl_s=1)
    with leases_taken(leases):
        pass


def test_an_expired_lease_is_worth_nothing_though_nobody_else_has_taken_the_rig(leases: Leases) -> None:
    taken = leases.take(["r"], ttl_s=0.2)
    until(lambda: leases.list()[0].left_s == 0, "it expires")
    with pytest.raises(LeaseLostError, match="it expired"):
        leases.require(taken.id, "r", taken.tokens["r"])
    with pytest.raises(LeaseLostError, match="it has expired"):
        leases.renew(taken.id, 60)
    later = leases.take(["r"], ttl_s=60)
    assert later.tokens["r"] == taken.tokens["r"] + 1
    with pytest.raises(LeaseLostError, match=r"given out anew|released or taken away"):
        leases.require(taken.id, "r", taken.tokens["r"])


def test_several_rigs_are_taken_all_or_none(leases: Leases) -> None:
    with leases_taken(leases, "b"):
        with pytest.raises(BusyError, match="b: this rig is held"):
            leases.take(["a", "b", "c"], ttl_s=60)
        with leases_taken(leases, "a", "c"):
            pass
    with ThreadPoolExecutor(4) as pool:
        orders = [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]]

        def once(names: list[str]) -> None:
            for _ in range(5):
                leases.release(leases.take(names, ttl_s=60, wait_s=90).id)

        list(pool.map(once, orders))


def test_whoever_has_waited_longest_is_next(leases: Leases) -> None:
    came: list[str] = []

    def wait(name: str) -> None:
        taken = leases.take(["r"], ttl_s=60, wait_s=60, owner=name)
        came.append(name)
        leases.release(taken.id)

    with ThreadPoolExecutor(3) as pool, leases_taken(leases):
        for number, name in enumerate(["first", "second", "third"], 1):
            pool.submit(wait, name)
            until(lambda number=number: len(leases.list()[0].waiting) == number, "it waits")  # type: ignore[misc]
        assert leases.list()[0].waiting == ("first", "second", "third")
        # Whoever does not wait does not push in either.
        leases.release(leases.find("r").id)
        with contextlib.suppress(BusyError):
            leases.release(leases.take(["r"], ttl_s=60, owner="pusher").id)
            came.append("pusher")
    assert [name for name in came if name != "pusher"] == ["first", "second", "third"]
    assert came[0] == "first"


def test_whoever_gives_up_waiting_is_in_nobodys_way(leases: Leases) -> None:
    with leases_taken(leases):
        with pytest.raises(BusyError):
            leases.take(["r"], ttl_s=60, wait_s=0.6)
        assert leases.list()[0].waiting == ()


def test_an_unhealthy_rig_is_not_handed_out(leases: Leases) -> None:
    leases.mark("r", healthy=False, reason="p0-t0-0 does not answer")
    with pytest.raises(
        UnhealthyError, match=r"(?s)r: this rig is not handed out.*p0-t0-0 does not answer.*mark r heal"
    ):
        leases.take(["r"], ttl_s=60, wait_s=5)
    assert (leases.list()[0].health, leases.list()[0].waiting) == ("unhealthy", ())
    with leases_taken(leases, healing=True):
        pass
    leases.mark("r", healthy=True)
    with leases_taken(leases):
        pass


def test_changes_are_undone_last_first_and_forgotten(leases: Leases) -> None:
    journal = Journal(leases.database)
    with HeldLease.take(leases, ["r"]) as lease:
        made = [journal.begin(lease, device("r"), f"change {n}", {"n": n}) for n in range(3)]
        made[1].made()
        made[2].stuck("no answer")
        assert [(entry.what, entry.state) for entry in journal.to_undo("r")] == [
            ("change 2", "stuck"),
            ("change 1", "made"),
            ("change 0", "intended"),
        ]
        assert journal.to_undo("other") == []
        for change in made:
            change.undone()
        assert journal.to_undo() == []


# -- the database itself ----------------------------------------------------------------------------------------------


def test_a_database_that_hangs_is_given_up(postgres_server: Postgres) -> None:
    with Database(postgres_server.new_database(), timeout_s=1) as database:
        Leases(database).list()
        postgres_server.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(InfrastructureError, match="does not answer"):
                Leases(database).list()
            assert time.monotonic() - began < 15
        finally:
            postgres_server.signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://x/y", "SQLite or PostgreSQL"),
        ("nonsense", "not a database of leases"),
        ("sqlite://", "kept in a file"),
        ("postgresql://me:hunter2@/x?host=/nonexistent", "cannot be used"),
        ("sqlite:////proc/none/leases.sqlite", "cannot be made"),
    ],
)
def test_a_database_that_is_none(url: str, said: str) -> None:
    with pytest.raises((UsageError, InfrastructureError), match=said) as caught:
        Leases(Database(url)).list()
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no database\n" * 100)
    with pytest.raises(InfrastructureError, match="not a database"):
        Leases(Database(f"sqlite:///{tmp_path / 'x'}")).list()
