"""Transceivers, backends and callers as processes, and a namespace with an address that WebRTC takes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from testbed.voice.keys import Keys
from tests.netns.voice.relays import ROOT, RelayProcess, environment, relay
from tests.netns.waiting import wait_until

#: WebRTC leaves loopback addresses out. Documentation's (RFC 5737, 3849), in a namespace that ends at itself.
ADDRESS = "192.0.2.1"
ADDRESS6 = "2001:db8::1"
PUBLIC = f"{ADDRESS}:3478"
#: Where something may stand between clients and the relay.
BETWEEN = f"{ADDRESS}:4000"
WITHIN = ("unshare", "--user", "--map-root-user", "--net")


def no_namespaces() -> str:
    """Why there are none here, or nothing."""
    if subprocess.run([*WITHIN, "true"], capture_output=True, check=False).returncode:
        return "not run: no user namespaces here"
    return ""


def make_network() -> None:
    """Loopback, and an interface with the addresses; in a network namespace of one's own."""
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
        ip.link("add", ifname="call0", kind="veth", peer="call1")
        for name in ("call1", "call0"):
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
        index = ip.link_lookup(ifname="call0")[0]
        ip.addr("add", index=index, address=ADDRESS, prefixlen=24)
        ip.addr("add", index=index, address=ADDRESS6, prefixlen=64, flags=0x02)
        # Clients look at which address the default route has.
        ip.route("add", dst="0.0.0.0/0", gateway="192.0.2.254")


class Process:
    """A command of the testbed, from the line by which it says that it is ready."""

    def __init__(self, log: Path, ready: str, *arguments: str, stdout: int | None = None) -> None:
        self.log = log
        with log.open("ab") as file:
            start = file.tell()
            command = [sys.executable, "-m", "testbed.cli", *arguments]
            self.process = subprocess.Popen(command, stderr=file, stdout=stdout, cwd=ROOT, env=environment())
        pattern = re.compile(ready)

        def told() -> re.Match[str] | None:
            return pattern.search(log.read_text()[start:])

        wait_until(lambda: told() or self.process.poll() is not None, f"{arguments[0]} is ready", 60)
        found = told()
        assert found, log.read_text()
        self.told = found

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 15.0) -> int:
        """Ask it to end, and wait for that; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


class TransceiverProcess(Process):
    """``testbed transceiver run``."""

    def __init__(self, directory: Path, keys: Keys, backend: str, relays: Sequence[str], *options: str,
                 listen: str = "127.0.0.1:5007", number: int = 7) -> None:  # fmt: skip
        directory.mkdir(exist_ok=True)
        self.keys = directory / "transceiver-keys.json"
        keys.for_transceiver().save(self.keys)
        told = r"transceiver (\d+): signalling (\S+), relays ([^\s,]+)(?:, metrics (\S+))?"
        arguments = ["transceiver", "run", "--listen", listen, "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
        arguments += ["--cluster", "1", "--number", str(number), "--keys", str(self.keys), "--backend", backend]
        arguments += [part for each in relays for part in ("--relay", each)]
        super().__init__(directory / "transceiver.log", told, *arguments, *options)
        self.pid, self.url, self.address = int(self.told[1]), self.told[2], self.told[3]

    def engine(self) -> int:
        """The process that has the calls."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def figures(self) -> dict[str, float]:
        """Its metrics, by name and labels."""
        with urllib.request.urlopen(f"http://{self.told[4]}/metrics", timeout=10) as response:
            text = response.read().decode()
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name.removeprefix("testbed_transceiver_"): float(value) for name, _, value in lines}


def kill_whole(transceiver: TransceiverProcess) -> None:
    """Kill both of its processes; the engine is stopped first, so that it cannot say a word."""
    engine = transceiver.engine()
    os.kill(engine, signal.SIGSTOP)
    transceiver.process.kill()
    transceiver.process.wait(10)
    os.kill(engine, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{engine}").exists(), "the engine has ended")


def ask(url: str, method: str = "GET", body: bytes | None = None, kind: str = "application/sdp",
        headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:  # fmt: skip
    """Status, headers and text of an HTTP answer, whatever the status."""
    headers = {"Content-Type": kind, **(headers or {})}
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=40) as response:
            return response.status, dict(response.headers), response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


@dataclass
class Scene:
    """A relay, a transceiver, and a backend."""

    relay: RelayProcess
    transceiver: TransceiverProcess
    backend: Process
    directory: Path
    keys: Keys

    def call(self, *options: str) -> dict[str, Any]:
        """``testbed voice call``, to its end; what it found."""
        return finish(self.start(*options))

    @contextmanager
    def calling(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """The same under way, from when the call is set up."""
        process = self.start(*options)
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "1 of 1 calls are set up" in line, line
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()

    def start(self, *options: str) -> subprocess.Popen[str]:
        """The same, just begun."""
        command = [sys.executable, "-m", "testbed.cli", "voice", "call", self.transceiver.url, "--json", *options]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
        )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a call found, at its end."""
    out, err = process.communicate(timeout=90)
    assert out, err
    found: dict[str, Any] = json.loads(out)
    return {**found, "exit": process.returncode, "stderr": err}


@contextmanager
def scene(directory: Path, *options: str, backend: str = "echo", public: str = PUBLIC, through: str = "",
          relay_options: Sequence[str] = ()) -> Iterator[Scene]:  # fmt: skip
    """All three, connected to each other, in a namespace of their own, where no port is another's."""
    keys = Keys.make()
    with ExitStack() as opened:
        table = {"cluster": 1, "transceivers": {"7": "127.0.0.1:5007"}}
        made = opened.enter_context(relay(directory / "relay", table, keys, *relay_options, listen=public))
        told = r"backend \d+: \w+ at (\S+)"
        served = Process(directory / "backend.log", told, "backend", backend, "--listen", "127.0.0.1:0")
        opened.callback(served.close)
        transceiver = TransceiverProcess(directory, keys, served.told[1], [through or made.public], *options)
        opened.callback(transceiver.close)
        yield Scene(made, transceiver, served, directory, keys)


@contextmanager
def program(module: str, *arguments: str, ready: str = "connected") -> Iterator[subprocess.Popen[str]]:
    """A client that is a module of the tests, from when it says that it is connected; it ends when its input does."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.strip() == ready:
                break
        else:
            raise AssertionError("".join(lines))
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
