"""Relays as processes, and what stands on either side of them: clients' sockets and a transceiver of a few lines."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from testbed.voice import framing, stun, ufrag
from testbed.voice.addresses import Address
from testbed.voice.keys import Keys
from testbed.voice.relay.control import ask
from tests.netns.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
RTP = b"\x80\x6f" + bytes(158)
_TOLD = re.compile(r"relay (\d+): clients (\S+), transceivers ([^\s,]+)(?:, metrics (\S+))?")


def environment() -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "drivers"), str(ROOT / "reports"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class RelayProcess:
    """``testbed relay run``, from its ready line to its end."""

    def __init__(self, directory: Path, table: object, keys: Keys, *options: str, listen: str = "127.0.0.1:0",
                 internal: str = "127.0.0.1:0", within: Sequence[str] = ()) -> None:  # fmt: skip
        directory.mkdir(exist_ok=True)
        self.table, self.keys = directory / "table.json", directory / "keys.json"
        self.write_table(table)
        keys.save(self.keys)
        self.log = directory / "log"
        command = [sys.executable, "-m", "testbed.cli", "relay", "run", "--listen", listen, "--internal", internal]
        command += ["--table", str(self.table), "--keys", str(self.keys), *options]
        with self.log.open("ab") as log:
            start = log.tell()
            self.process = subprocess.Popen([*within, *command], stderr=log, cwd=ROOT, env=environment())
        wait_until(lambda: self._told(start) or self.process.poll() is not None, "the relay is there", 20)
        told = self._told(start)
        assert told, self.log.read_text()
        self.pid = int(told[1])
        self.public, self.internal = told[2], told[3]
        self.metrics = told[4]

    def _told(self, start: int) -> re.Match[str] | None:
        return _TOLD.search(self.log.read_text()[start:])

    def write_table(self, table: object) -> None:
        """As an editor does: the file is replaced whole."""
        new = self.table.with_suffix(".new")
        new.write_text(table if isinstance(table, str) else json.dumps(table))
        new.replace(self.table)

    def status(self) -> dict[str, Any]:
        return ask(self.pid)

    def dropped(self, reason: str) -> int:
        return int(self.status()["dropped"][reason])

    def workers(self) -> list[int]:
        return [each["pid"] for each in self.status()["workers"]]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        # Its workers end with it, a moment later, and with them the sockets.
        wait_until(lambda: free(self.public) and free(self.internal), "its ports are free")


@contextmanager
def relay(directory: Path, table: object, keys: Keys, *options: str, **more: Any) -> Iterator[RelayProcess]:
    made = RelayProcess(directory, table, keys, *options, **more)
    try:
        yield made
    finally:
        made.kill()


def udp(bind: str = "127.0.0.1:0", timeout_s: float = 2.0) -> socket.socket:
    """A socket at an address, with a deadline for what it waits for."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        sock.bind(Address.parse(bind, wildcard=True).pair)
    except OSError:
        sock.close()
        raise
    sock.settimeout(timeout_s)
    return sock


def free(address: str) -> bool:
    """Whether nobody has a port."""
    try:
        udp(address).close()
    except OSError:
        return False
    return True


def address_of(sock: socket.socket) -> str:
    return str(Address.of(*sock.getsockname()[:2]))


class Transceiver:
    """Takes framed datagrams, and answers them."""

    def __init__(self, keys: Keys, bind: str = "127.0.0.1:0") -> None:
        self.keys = keys.for_transceiver()
        self.socket = udp(bind)
        self.address = address_of(self.socket)

    def take(self) -> tuple[framing.Unframed, tuple[Any, ...]]:
        data, source = self.socket.recvfrom(4096)
        return framing.unframe(data, self.keys, int(time.time())), source

    def answer(self, taken: tuple[framing.Unframed, tuple[Any, ...]], payload: bytes) -> None:
        self.socket.sendto(framing.answer(taken[0].headers, self.keys) + payload, taken[1])

    def silent(self, for_s: float = 0.1) -> bool:
        return silent(self.socket, for_s)

    def close(self) -> None:
        self.socket.close()


class Client:
    """A client's socket, on a port that no client had before: a relay may still know that one."""

    _had: ClassVar[set[int]] = set()

    def __init__(self, keys: Keys, public: str, bind: str = "127.0.0.1:0") -> None:
        self.keys = keys
        with ExitStack() as passed_over:
            self.socket = udp(bind)
            while self.socket.getsockname()[1] in self._had:
                passed_over.enter_context(self.socket)
                self.socket = udp(bind)
        self._had.add(self.socket.getsockname()[1])
        self.relay = Address.parse(public).pair
        self.address = Address.parse(address_of(self.socket))

    def check(self, cluster: int = 1, transceiver: int = 7, name: str | None = None) -> bytes:
        """Send a connectivity check; returns it."""
        name = name or ufrag.encode(cluster, transceiver, *self.keys.ufrag.current)
        request = stun.binding_request(name)
        self.send(request)
        return request

    def send(self, payload: bytes) -> None:
        self.socket.sendto(payload, self.relay)

    def receive(self) -> bytes:
        data, source = self.socket.recvfrom(4096)
        assert source[:2] == self.relay, f"from {source}, not from the relay's port"
        return data

    def close(self) -> None:
        self.socket.close()


def silent(sock: socket.socket, for_s: float = 0.1) -> bool:
    """Whether nothing arrives for a moment."""
    before = sock.gettimeout()
    sock.settimeout(for_s)
    try:
        sock.recv(4096)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(before)
    return False


def call(client: Client, transceiver: Transceiver, number: int = 7) -> None:
    """Set a call up and see it work both ways."""
    request = client.check(transceiver=number)
    taken = transceiver.take()
    assert taken[0].payload == request
    assert taken[0].client == client.address
    transceiver.answer(taken, b"\x01\x01 as good as a response")
    assert client.receive() == b"\x01\x01 as good as a response"


def until_dropped(relay: RelayProcess, reason: str, count: int, act: Callable[[], object] = lambda: None) -> None:
    act()
    wait_until(lambda: relay.dropped(reason) >= count, f"{count} dropped as {reason}: {relay.status()['dropped']}")
