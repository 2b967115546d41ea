"""What every fabric offers, whether made of namespaces or of devices.

Few methods; what a realisation cannot do it refuses by raising UnsupportedError with the reason, which
``capabilities`` also tells in advance.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address
from pathlib import Path
from typing import Protocol

from testbed.addressing import AddressPlan
from testbed.errors import nearest
from testbed.fabric.conditions import Condition, FaultCounter, Imposed, Running
from testbed.fabric.targets import Carrying
from testbed.lab import Lab, Link, Tier
from testbed.record import CounterReading, Event


@dataclass(frozen=True)
class Capabilities:
    """What a fabric can do, and why not the rest.

    Attributes:
        present: capability names.
        missing: capability → reason and remedy.
    """

    present: frozenset[str]
    missing: Mapping[str, str] = field(default_factory=dict)

    def reason_against(self, name: str) -> str | None:
        """Why ``name`` cannot be done here; None if it can."""
        if name in self.present:
            return None
        if name in self.missing:
            return self.missing[name]
        close = nearest(name, self.present | self.missing.keys())
        return f"there is no capability {name!r}" + (f"; the nearest is {close}" if close else "")


@dataclass(frozen=True)
class Ready:
    """How a process says that it is ready; at most one of these, none meaning as soon as it is started.

    Attributes:
        fd: it writes a line to the descriptor whose number is in its environment as ``READY_FD``.
        line: it prints a line in which this regular expression is found.
        port: it listens on this TCP or UDP port.
        timeout_s: how long that may take.
    """

    fd: bool = False
    line: str | None = None
    port: int | None = None
    timeout_s: float = 10.0


@dataclass(frozen=True)
class Completed:
    """A command that has ended: exit code (negative: the signal that ended it) and what it printed."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Process(Protocol):
    """A process on a node. When it ends, what it left running in its session ends too."""

    @property
    def node(self) -> str:
        """The node's name."""
        ...

    @property
    def argv(self) -> tuple[str, ...]:
        """Its command line."""
        ...

    @property
    def log(self) -> Path | None:
        """Where its output is kept; None when only :meth:`output` has it."""
        ...

    def poll(self) -> int | None:
        """Exit code, negative for a signal, None while it runs."""
        ...

    def wait(self, timeout_s: float) -> int:
        """Wait for its end. Raises InfrastructureError on the deadline, with the tail of its output."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Signal it and what it started. No error when it has ended."""
        ...

    def stop(self, grace_s: float = 2.0) -> int:
        """End it: SIGTERM, after ``grace_s`` SIGKILL. Returns the exit code."""
        ...

    def end(self, grace_s: float) -> int:
        """Wait so long for its end, then SIGKILL. Returns the exit code."""
        ...

    def restart(self) -> None:
        """Start it again as it was started, ready as then, once it has ended; this then stands for the new one.

        Raises UsageError while it runs, InfrastructureError when it does not become ready.
        """
        ...

    def output(self) -> str:
        """What it printed so far, at most the last MiB."""
        ...


class Node(Protocol):
    """A host or a switch."""

    @property
    def name(self) -> str:
        """The lab's name of it."""
        ...

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 30.0, env: Mapping[str, str] | None = None, check: bool = True
    ) -> Completed:
        """Run a command to its end. Raises InfrastructureError on the deadline or, with ``check``, for a failure."""
        ...

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        ready: Ready | None = None,
        log_name: str | None = None,
    ) -> Process:
        """Start a process and return once it is ready. Raises InfrastructureError if it does not become so."""
        ...

    def port_counters(self) -> Mapping[str, Mapping[str, int]]:
        """Port → 64-bit counters named as in rtnl_link_stats64 (``rx_packets``, ``tx_dropped``, …)."""
        ...


class Host(Node, Protocol):
    """A host with one NIC port per plane."""


@dataclass(frozen=True)
class UsidCounters:
    """What a switch counted.

    Attributes:
        shifted: packets whose uSID was the switch's own and that went on to what followed it.
        foreign: packets dropped because what they asked for, before or after that shift, is no uSID of its table.
    """

    shifted: int
    foreign: int


PhaseSink = Callable[[Event], None]


class Switch(Node, Protocol):
    """A T0 or a T1."""

    def usid_counters(self) -> UsidCounters:
        """Packets shifted, and packets dropped for a foreign uSID."""
        ...

    def ecn_marked(self) -> Mapping[str, int]:
        """Port that leads to another switch → packets it marked (ECN, RFC 3168) since the fabric came up.

        Ports that lead to hosts are not in it: the last hop never marks. Raises UnsupportedError with the reason
        where ``capabilities`` lacks ``ecn``.
        """
        ...

    def reboot(self, kind: str, on_phase: PhaseSink, *, stop: Callable[[float], bool]) -> None:
        """Go through a whole reboot, reporting each phase when it is reached, and return when it forwards again.

        Args:
            kind: ``cold``; ``warm``: it goes on forwarding and takes no commands meanwhile; ``power``: it is dark
                until ``stop`` says so, then boots.
            on_phase: called with an event per phase: ``stopped`` (nothing is forwarded any more),
                ``carrier lost``, ``carrier back``, ``forwarding``; of a warm one ``control lost``, ``control back``.
            stop: waits the given seconds; True when the reboot is to be cut short: the switch is then put back
                at once.

        Raises UnsupportedError for a kind this fabric cannot do, UnhealedError when it does not come back as it was.
        """
        ...


class AgentSite(Protocol):
    """Where a process of ours that serves some hosts runs: one for all in a namespace fabric, one per host on a rig."""

    @property
    def hosts(self) -> Sequence[str]:
        """The hosts it serves."""
        ...

    def namespace_fd(self, host: str) -> int | None:
        """Number, in the started process, of the descriptor of a host's network namespace; None if it runs there."""
        ...

    def start(self, argv: Sequence[str], *, fds: Mapping[int, int], log_name: str) -> Process:
        """Start the agent with descriptors handed over (number there → number here). Raises InfrastructureError."""
        ...


@dataclass(frozen=True)
class SharedFolder:
    """A folder that all nodes share and nobody else; it goes with the fabric.

    Attributes:
        inside: its path for programs on nodes.
        outside: its path for this process.
    """

    inside: Path
    outside: Path


class Spread(StrEnum):
    """How ordinary IPv6 is spread over the paths of a pair.

    PINNED: one path. HASHED: each flow takes one of several, by a hash of its addresses, protocol and ports. SPRAYED:
    each packet takes one of several at random, whatever flow it is of.
    """

    PINNED = "pinned"
    HASHED = "hashed"
    SPRAYED = "sprayed"


@dataclass(frozen=True)
class SharedAddress:
    """An address that several hosts hold. Packets to it go to one of them, the first until it is moved."""

    address: IPv6Address
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class OrdinaryPaths:
    """Ordinary IPv6 between hosts' NIC addresses.

    Attributes:
        evs: (source host, destination host) → EVs, both directions of every pair.
        mtu: bytes of the largest inner packet the sending host does not fragment; TCP keeps to it by itself.
    """

    evs: Mapping[tuple[str, str], tuple[int, ...]]
    mtu: int


class Fabric(Protocol):
    """A lab made real."""

    @property
    def name(self) -> str:
        """What other processes find it under."""
        ...

    @property
    def instance(self) -> str:
        """What tells it from another fabric of its name, earlier or later."""
        ...

    @property
    def lab(self) -> Lab:
        """What it realises."""
        ...

    @property
    def addresses(self) -> AddressPlan:
        """Its uSIDs and addresses."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    @property
    def folder(self) -> SharedFolder:
        """What programs on its nodes exchange files in. Raises UnsupportedError where they share none."""
        ...

    def host(self, name: str) -> Host:
        """The host of this name. Raises LabError with the nearest name."""
        ...

    def switch(self, name: str) -> Switch:
        """The switch of this name. Raises LabError with the nearest name."""
        ...

    def t0(self, *, carrying: Carrying) -> Switch:
        """The T0 that carries the most of a workload. Raises UsageError when none does."""
        ...

    def t1(self, *, carrying: Carrying) -> Switch:
        """The T1 that carries the most of a workload. Raises UsageError when none does."""
        ...

    def link(self, name: str | None = None, *, above: Tier = Tier.T0, carrying: Carrying | None = None) -> Link:
        """A link by name, or the one above a tier that carries the most of a workload.

        Raises LabError for a name the lab does not have, UsageError when no link carries the workload.
        """
        ...

    def agent_sites(self, hosts: Sequence[str]) -> Sequence[AgentSite]:
        """Where agents for these hosts run; every host is served by one of them."""
        ...

    def ordinary_paths(self, evs: Mapping[tuple[str, str], int]) -> AbstractContextManager[OrdinaryPaths]:
        """Let hosts reach each other's NIC addresses by ordinary IPv6 while the context lasts.

        The source host encapsulates (H.Encaps.Red, RFC 8986 §5.2) towards the EV's path, the destination host
        decapsulates (End.DT6, RFC 8986 §4.6). A direction has one path at a time.

        Args:
            evs: (source, destination) → EV. A direction left out takes the EV of the other: the same switches back.

        Raises LabError for an EV that is no path of its pair, UsageError when a direction already has a path,
        InfrastructureError when the hosts refuse, UnhealedError when what was installed cannot be removed.
        """
        ...

    def spread_paths(
        self,
        evs: Mapping[tuple[str, str], Sequence[int]],
        spread: Spread,
        shared: Sequence[SharedAddress] = (),
    ) -> AbstractContextManager[OrdinaryPaths]:
        """The same over several paths of each direction.

        A path that the host itself cannot use, because its port is down, is left out meanwhile; of what fails further
        away the host knows nothing.

        Args:
            evs: (source, destination) → EVs. A direction left out takes those of the other.
            spread: how.
            shared: addresses that these hosts hold as well; every other source of ``evs`` needs EVs to each holder.

        Raises as :meth:`ordinary_paths` does.
        """
        ...

    def process(self, name: str) -> Process | Running:
        """A process that runs on a node, by ``NODE/PROGRAM`` or ``NODE/PID``, whoever started it.

        One that this process started comes as its own handle. Raises LabError for the node, UsageError where no such
        process runs, or several do.
        """
        ...

    def impose(self, what: str, conditions: Sequence[Condition]) -> Imposed:
        """Put conditions in force together, all or none; ``what`` is what a person calls the fault.

        Conditions of several faults may be about one thing: the last imposed is in force, and each lifted leaves what
        the others hold. Raises UnsupportedError for a condition that ``capabilities`` lacks, LabError and UsageError
        for one that makes no sense on this lab, InfrastructureError for what was refused.
        """
        ...

    def fault_counters(self) -> Sequence[FaultCounter]:
        """What the rules in force have done so far, of all faults of all processes on the fabric."""
        ...

    def set_link(self, link: Link, *, up: bool) -> Event:
        """Take a link down, or up and everything that hung on it back.

        Returns the event, whose uncertainty is how long the change took. Raises UnhealedError when a link brought up
        does not become as planned.
        """
        ...

    def counters(self) -> CounterReading:
        """Counters of its nodes that tell where packets are, as they are now; never ``settled``.

        A fabric that cannot read all of them leaves rows out: what they would tell is then not known, not 0. Raises
        InfrastructureError.
        """
        ...

    def check(self, *, beside_faults: bool = False) -> list[str]:
        """Everything that is not as planned, a line each; empty for a pristine fabric.

        ``beside_faults``: what faults in force have changed is left out.
        """
        ...

    def heal(self, dead: Collection[int]) -> list[str]:
        """Have what processes that are gone left behind put right; ``dead``: their numbers.

        Returns what remains that no fault in force explains, a line each. Raises InfrastructureError.
        """
        ...

    def close(self) -> None:
        """End it; nothing of it remains."""
        ...
