"""Numbered packets over one path, and which of them arrive how."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.fabric.netns.fabric import NetnsFabric
from testbed.fabric.protocols import Process, Ready
from tests.netns.faults.wire_agent import FILLING
from tests.netns.waiting import wait_until

AGENT = Path(__file__).with_name("wire_agent.py")
PYTHON = [sys.executable, "-I", "-S", str(AGENT)]


@dataclass(frozen=True)
class Arrival:
    """A packet that arrived: its number, its traffic class, what it carried."""

    number: int
    traffic_class: int
    filling: bytes = FILLING


class Wire:
    """From one host to another over one EV."""

    def __init__(self, fabric: NetnsFabric, src: str, dst: str, ev: int, receiver: Process) -> None:
        self._fabric = fabric
        self.src, self.dst, self.ev = src, dst, ev
        self._receiver = receiver
        self._seen = 0

    @property
    def path(self) -> tuple[str, ...]:
        return self._fabric.addresses.path(self.src, self.dst, self.ev).nodes

    def send(self, count: int, *, ecn: int = 0) -> None:
        self._fabric.host(self.src).run(self.sending(count, ecn=ecn))

    def sending(self, count: int, *, ecn: int = 0) -> list[str]:
        """The command that sends."""
        addresses = self._fabric.addresses
        source = addresses.port_address(self.src, addresses.path(self.src, self.dst, self.ev).plane)
        destination = addresses.destination(self.src, self.dst, self.ev)
        words = (self.ev, source, destination, count, ecn)
        return [*PYTHON, "send", *map(str, words)]

    def arrived(self, count: int) -> list[Arrival]:
        """What arrived since it was asked last: so many packets, and no more."""
        lines: list[str] = []

        def there() -> bool:
            lines[:] = self._receiver.output().splitlines()[self._seen :]
            return len(lines) >= count

        wait_until(there, f"{count} packets")
        self._seen += len(lines)
        assert len(lines) == count, f"{len(lines)} packets arrived, not {count}"
        return [_read(line) for line in lines]

    def numbers(self, count: int) -> list[int]:
        return [arrival.number for arrival in self.arrived(count)]

    def passes(self, count: int = 20) -> None:
        """Everything sent arrives, in order and as it was."""
        self.send(count)
        assert self.arrived(count) == [Arrival(number, 0) for number in range(count)]


def _read(line: str) -> Arrival:
    number, traffic_class, *filling = line.split()
    return Arrival(int(number), int(traffic_class), bytes.fromhex(filling[0]) if filling else FILLING)


@contextmanager
def wire(fabric: NetnsFabric, src: str = "h0", dst: str = "h1", ev: int | None = None) -> Iterator[Wire]:
    chosen = fabric.addresses.evs(src, dst)[0] if ev is None else ev
    receiver = fabric.host(dst).popen([*PYTHON, "receive", str(chosen)], ready=Ready(fd=True))
    try:
        yield Wire(fabric, src, dst, chosen, receiver)
    finally:
        receiver.stop(0.0)
