"""What can be wrong with a fabric, as values: a fault is one or several of these, imposed together.

A realisation may know only some; it refuses the others by name (UnsupportedError) before anything is changed.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Protocol

from testbed.lab import Port


class Running(Protocol):
    """A process on a node, as far as a condition needs it; see :class:`testbed.fabric.protocols.Process`."""

    @property
    def node(self) -> str:
        """The node's name."""
        ...

    @property
    def argv(self) -> tuple[str, ...]:
        """Its command line."""
        ...

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Signal it and what it started. No error when it has ended."""
        ...


@dataclass(frozen=True)
class PortDown:
    """A port is without carrier; so is the other end of its link."""

    port: Port


@dataclass(frozen=True)
class RouteMissing:
    """A switch has no route for a uSID: that of a neighbour, of a host's port below it, or its own."""

    switch: str
    usid: str


@dataclass(frozen=True)
class Misrouted:
    """A switch sends what is for a uSID out by a wrong port."""

    switch: str
    usid: str
    port: Port


@dataclass(frozen=True)
class RateReduced:
    """What leaves a port is shaped to a rate (bit/s on the wire of the emulation)."""

    port: Port
    bits_per_s: int


@dataclass(frozen=True)
class Delayed:
    """What leaves a port leaves it later, by ``delay_s`` give or take ``jitter_s``."""

    port: Port
    delay_s: float
    jitter_s: float = 0.0


@dataclass(frozen=True)
class ControlAway:
    """A switch takes no commands, and what ran on it has ended; it forwards."""

    switch: str


@dataclass(frozen=True)
class AddressMoved:
    """Packets to an address that several hosts share go to this one of them."""

    address: IPv6Address
    host: str


@dataclass(frozen=True)
class Paused:
    """A process and those it started do not run (SIGSTOP)."""

    process: Running


# -- what a rule does to which packets --------------------------------------------------------------------------------


@dataclass(frozen=True)
class AtRandom:
    """Each packet with this probability, independently."""

    share: float


@dataclass(frozen=True)
class Every:
    """Of every ``n`` packets the one numbered ``offset``, from 0: n = 10, offset = 0 is the 1st, 11th, 21st."""

    n: int
    offset: int = 0


@dataclass(frozen=True)
class Listed:
    """The packets with these numbers, counted from 0; over again after ``period`` of them where that is given."""

    packets: tuple[int, ...]
    period: int | None = None


Selection = AtRandom | Every | Listed
ALL = Every(1)


@dataclass(frozen=True)
class Drop:
    """The packet goes no further."""


@dataclass(frozen=True)
class Corrupt:
    """Bytes are changed by exclusive or with ``mask``; no checksum is corrected.

    ``offset``: of the first, in bytes behind the outer IPv6 header.
    """

    offset: int
    mask: bytes


@dataclass(frozen=True)
class Duplicate:
    """The packet leaves twice, one right behind the other. A copy is not copied again."""


@dataclass(frozen=True)
class MarkEcn:
    """An ECN-capable packet becomes *congestion experienced* (RFC 3168 §5); others are not counted as packets."""


Effect = Drop | Corrupt | Duplicate | MarkEcn


@dataclass(frozen=True)
class Only:
    """Which packets a rule sees at all: those of the lab's block that both of these hold of, where given.

    Attributes:
        usid: their destination still holds the uSID of this switch or host's port (``h3:p0``).
        ev: they follow this EV of a pair of hosts: (source, destination, EV).
    """

    usid: str | None = None
    ev: tuple[str, str, int] | None = None


_COUNTS: dict[type[Effect], str] = {Drop: "dropped", Corrupt: "corrupted", Duplicate: "duplicated", MarkEcn: "marked"}


@dataclass(frozen=True)
class Rule:
    """A port does something to some of the packets that enter by it, or leave by it.

    ``everything``: what is not of the lab's block is dropped too, uncounted; for drops of every packet.
    """

    port: Port
    outgoing: bool
    effect: Effect
    which: Selection = ALL
    only: Only = Only()
    everything: bool = False

    @property
    def counts(self) -> str:
        """What its counter counts."""
        return _COUNTS[type(self.effect)]


Condition = PortDown | RouteMissing | Misrouted | RateReduced | Delayed | ControlAway | AddressMoved | Paused | Rule


@dataclass(frozen=True)
class FaultCounter:
    """What a rule has done so far.

    Attributes:
        fault: the fault's id.
        port: where. outgoing: whether to packets that leave by it.
        what: ``dropped``, ``corrupted``, ``duplicated`` or ``marked``.
        packets: how many.
    """

    fault: str
    port: Port
    outgoing: bool
    what: str
    packets: int


_NEEDS: dict[type[Condition] | type[Effect], str] = {
    PortDown: "link-down",
    RouteMissing: "routes",
    Misrouted: "routes",
    RateReduced: "rate",
    Delayed: "delay",
    ControlAway: "control",
    AddressMoved: "routes",
    Paused: "processes",
    Drop: "gray-loss",
    Corrupt: "corruption",
    Duplicate: "duplication",
    MarkEcn: "ecn-mark",
}


def capability_of(condition: Condition) -> str:
    """What a fabric must be able to do for it."""
    return _NEEDS[type(condition.effect if isinstance(condition, Rule) else condition)]


class Imposed(Protocol):
    """Conditions that hold on a fabric, of one fault. They end with the process that imposed them, however it ends."""

    @property
    def id(self) -> str:
        """The fault's id, which no other fault on the fabric has."""
        ...

    @property
    def stamps(self) -> Mapping[Condition, tuple[int, int]]:
        """CLOCK_REALTIME (ns) before and after each was put in force."""
        ...

    def lift(self, *conditions: Condition) -> tuple[int, int]:
        """Lift these, or all that are left, and return once what they had changed is as planned again.

        What other faults hold stays as they want it. Returns CLOCK_REALTIME (ns) before which nothing was lifted, and
        after which everything was. Raises UnhealedError for what could not be undone.
        """
        ...

    def counted(self) -> Mapping[Port, int]:
        """Port → packets that its rules have acted on, each rule counting until it is lifted."""
        ...
