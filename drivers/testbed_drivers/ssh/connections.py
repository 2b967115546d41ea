"""All connections of a run: one to each device, jump hosts shared between devices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self, TypeVar

import paramiko

from testbed.lab.inventory import Device, Hop
from testbed.lab.rig import Credential
from testbed_drivers.ssh import hostkeys, login, sockets
from testbed_drivers.ssh.connection import Connection
from testbed_drivers.ssh.limits import Limits

T = TypeVar("T")
#: Devices talked to at once.
_AT_ONCE: Final = 64


class Connections:
    """Hands out the connection to a device, always the same one. Safe to use from several threads.

    Args:
        limits: bounds of every connection.
        read_only: no command that changes a device is sent to any.
        guard: called before anything is sent to a device; raises when none may be touched any more.
    """

    def __init__(
        self, limits: Limits | None = None, *, read_only: bool = False, guard: Callable[[], None] = lambda: None
    ) -> None:
        self.limits = limits or Limits()
        self.read_only = read_only
        self._guard = guard
        self._lock = threading.Lock()
        self._devices: dict[tuple[str, str], Connection] = {}
        self._hops: dict[tuple[Hop, ...], _JumpHost] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def to(self, device: Device) -> Connection:
        """The connection to a device. Nothing is contacted before the first command."""
        with self._lock:
            key = (device.rig, device.node)
            if key not in self._devices:
                self._devices[key] = Connection(
                    device, lambda: self._dial(device), self.limits, read_only=self.read_only, guard=self._guard
                )
            return self._devices[key]

    def close(self) -> None:
        """End all connections, those through jump hosts first."""
        with self._lock:
            devices, hops = list(self._devices.values()), list(self._hops.values())
            self._devices.clear()
            self._hops.clear()
        for device in devices:
            device.close()
        for hop in reversed(hops):
            hop.close()

    def _dial(self, device: Device) -> paramiko.Transport:
        return self._open(device.address, device.port, device.credential, device.jumps, device.known_hosts)

    def _open(
        self, address: str, port: int, credential: Credential, hops: Sequence[Hop], known_hosts: str | None
    ) -> paramiko.Transport:
        # Before anything is contacted: without a known key there is no use in it.
        known = hostkeys.known_keys(known_hosts, address, port)
        if not known.trusted:
            raise known.unknown()
        if hops:
            way = self._jump_host(tuple(hops), known_hosts)
            stream = sockets.through(way.transport(), hops[-1].name, address, port, self.limits)
            return login.log_in(stream, known, credential, self.limits)
        return login.log_in(sockets.direct(address, port, self.limits), known, credential, self.limits)

    def _jump_host(self, hops: tuple[Hop, ...], known_hosts: str | None) -> _JumpHost:
        last = hops[-1]
        key = hops

        def dial() -> paramiko.Transport:
            return self._open(last.address, last.port, last.credential, hops[:-1], known_hosts)

        with self._lock:
            return self._hops.setdefault(key, _JumpHost(dial))


class _JumpHost:
    """The connection to a jump host, which all devices behind it share."""

    def __init__(self, dial: Callable[[], paramiko.Transport]) -> None:
        self._dial = dial
        self._lock = threading.Lock()
        self._transport: paramiko.Transport | None = None

    def transport(self) -> paramiko.Transport:
        """It, made if there is none or it has ended."""
        with self._lock:
            if self._transport is None or not self._transport.is_active():
                self._transport = self._dial()
            return self._transport

    def close(self) -> None:
        """End it."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()
                self._transport = None


def at_once(devices: Iterable[Device], work: Callable[[Device], T]) -> list[T | Exception]:
    """Do something with every device, all at once; what each came to, or the error it raised, in their order."""
    wanted = list(devices)

    def one(device: Device) -> T | Exception:
        try:
            return work(device)
        except Exception as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, min(_AT_ONCE, len(wanted))), thread_name_prefix="device") as pool:
        return list(pool.map(one, wanted))
