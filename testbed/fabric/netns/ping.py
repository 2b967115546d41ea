"""Probe paths of a running fabric, hop by hop: loops that turn at each switch, then the destination one-way.

A leg that loses where the one before it did not is where a path is broken: the link between the two, either way, or the
node the leg turns at.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from testbed.addressing import AddressPlan
from testbed.errors import InfrastructureError
from testbed.fabric.netns import executed, processes

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric
    from testbed.fabric.netns.processes import NetnsProcess

_FIRST_NAMESPACE_FD = 8
_END_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Leg:
    """A way a probe takes: from the source along ``ev`` to ``to`` and back, or, ``one_way``, to the destination.

    ``link`` is the last link on the way out: the one that the leg before does not use.
    """

    ev: int
    to: str
    link: str
    destination: str
    one_way: bool


@dataclass(frozen=True)
class Reply:
    """What became of one probe: its time in ns, or None with the error that kept it from being sent, or lost."""

    leg: int
    sequence: int
    ns: int | None
    error: str = ""


@dataclass
class Statistics:
    """Counts and times of one leg; times as ping has them."""

    sent: int = 0
    received: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    least_ns: int = 0
    most_ns: int = 0
    _sum: int = 0
    _squares: int = 0

    def add(self, reply: Reply) -> None:
        """Count a probe that has been answered, lost or refused."""
        self.sent += 1
        if reply.error:
            self.errors[reply.error] = self.errors.get(reply.error, 0) + 1
        if reply.ns is not None:
            self.least_ns = reply.ns if not self.received else min(self.least_ns, reply.ns)
            self.most_ns = max(self.most_ns, reply.ns)
            self.received += 1
            self._sum += reply.ns
            self._squares += reply.ns * reply.ns

    @property
    def loss(self) -> float | None:
        """Share of the probes lost; None without probes."""
        return None if not self.sent else 1 - self.received / self.sent

    @property
    def mean_ns(self) -> float | None:
        """Mean time; None where none came back."""
        return self._sum / self.received if self.received else None

    @property
    def mdev_ns(self) -> float | None:
        """Standard deviation of the times over all probes that came back (not of a sample), as ping's mdev."""
        if not self.received:
            return None
        return math.sqrt(max(0.0, self._squares / self.received - (self._sum / self.received) ** 2))


def legs(plan: AddressPlan, src: str, dst: str, ev: int) -> list[Leg]:
    """The legs that take a path apart, nearest first."""
    path = plan.path(src, dst, ev)
    switches = path.nodes[1:-1]
    loops = [
        Leg(ev, switch, path.links[number].name, str(plan.round_trip(src, path.plane, switches[: number + 1])), False)
        for number, switch in enumerate(switches)
    ]
    return [*loops, Leg(ev, dst, path.links[-1].name, str(plan.destination(src, dst, ev)), True)]


def broken_at(path_legs: Sequence[Leg], statistics: Sequence[Statistics]) -> int | None:
    """Index of the first leg that lost probes; None where none did."""
    for number, (_, counted) in enumerate(zip(path_legs, statistics, strict=True)):
        if counted.received < counted.sent:
            return number
    return None


class Pinging:
    """Probes under way on a fabric; iterate over it for what becomes of each. End it early with :meth:`stop`.

    Args:
        fabric: a running fabric.
        src, dst: hosts.
        all_legs: what to probe, each leg once a round.
        count: rounds; None: until stopped.
        interval_s: between rounds.
        timeout_s: a probe that has not come back by then is lost.

    Raises InfrastructureError.
    """

    def __init__(
        self,
        fabric: NetnsFabric,
        src: str,
        dst: str,
        all_legs: Sequence[Leg],
        *,
        count: int | None,
        interval_s: float,
        timeout_s: float,
    ) -> None:
        plan = fabric.addresses
        ours, theirs = str(plan.nic_address(src)), str(plan.nic_address(dst))
        request = {
            "run": secrets.randbits(32),
            "count": count,
            "interval_s": interval_s,
            "timeout_s": timeout_s,
            "inner_source": ours,
            "namespaces": [_FIRST_NAMESPACE_FD, _FIRST_NAMESPACE_FD + 1],
            "legs": [
                {
                    "destination": leg.destination,
                    "to": int(leg.one_way),
                    "inner_destination": theirs if leg.one_way else ours,
                }
                for leg in all_legs
            ],
        }
        numbers = [fabric.plan.namespaces[node] for node in (src, dst)]
        with ExitStack() as stack:
            source = stack.enter_context(processes.open_memory())
            source.write(json.dumps(request).encode())
            source.seek(0)
            errors = processes.open_memory()
            reader, writer = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, writer)
            self._errors = errors
            self._stream = os.fdopen(reader, "rb")
            self._process: NetnsProcess = processes.start(
                fabric.client,
                src,
                numbers[0],
                executed.command("testbed.fabric.netns.ping_agent"),
                None,
                fds={0: source.fileno(), 1: writer, 2: errors.fileno()},
                namespace_fds={_FIRST_NAMESPACE_FD + place: number for place, number in enumerate(numbers)},
            )

    def __iter__(self) -> Iterator[Reply]:
        for line in self._stream:
            told = json.loads(line)
            yield Reply(told["leg"], told["seq"], told.get("ns"), told.get("error", ""))
        self._stream.close()
        code = self._process.wait(_END_TIMEOUT_S)
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        self._errors.close()
        if code != 0:
            ended = code == -signal.SIGKILL
            raise InfrastructureError(
                "the fabric has ended" if ended else "the probe process ended early",
                found=text[-2000:] or f"exit code {code}",
                remedy="`testbed status` lists what runs",
            )

    def stop(self) -> None:
        """Send no more; what is under way is still told."""
        self._process.signal(signal.SIGTERM)
