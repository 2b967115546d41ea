"""What the rig side and device drivers agree on, beside what every fabric offers: a leaf that both import.

A driver is one class for one kind of device, found by its name among the entry points of the group ``testbed.drivers``.
It has those of the small protocols below, and of :mod:`testbed.fabric.abilities`, that its device can do, and names
them in ``capabilities``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar, cast, runtime_checkable

from testbed.lab.inventory import Device

T = TypeVar("T")

#: What ``verified_on`` says of a driver that nobody has run against the device itself.
NEVER_ON_HARDWARE: Final = "never on hardware"
#: Set to anything, it has this process and those it starts change nothing on any device.
READ_ONLY_VARIABLE: Final = "TESTBED_READ_ONLY"
#: How a driver undoes a change: plain data that only this driver reads.
Inverse = Mapping[str, Any]


class Change(Protocol):
    """An entry of the journal of device changes: how a change is undone is on disk, so the change may be made."""

    @property
    def node(self) -> str:
        """The device it is about."""
        ...

    def require_ours(self) -> None:
        """Raise LeaseLostError when this run does not hold the device's rig any more."""
        ...

    def made(self) -> None:
        """Say that it was made."""
        ...

    def undone(self) -> None:
        """Say that nothing is left of it."""
        ...


class Changes(Protocol):
    """The journal, under the lease of this run."""

    def begin(self, device: Device, what: str, inverse: Inverse) -> Change:
        """Write down how a change is undone; on disk when this returns. Raises LeaseLostError."""
        ...


class Closes(Protocol):
    """Something that is held open."""

    def close(self) -> None:
        """Let go of it."""
        ...


class Access:
    """How the devices of a run may be touched; handed to every driver.

    Args:
        read_only: nothing may be changed on any device; so it is, too, where $TESTBED_READ_ONLY is set.
        guard: raises when no device may be touched any more; called before anything is sent.
    """

    def __init__(self, *, read_only: bool = False, guard: Callable[[], None] = lambda: None) -> None:
        self.read_only = read_only or bool(os.environ.get(READ_ONLY_VARIABLE))
        self.guard = guard
        self._lock = threading.Lock()
        self._shared: dict[Hashable, Closes] = {}

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """What drivers share between devices, such as connections to jump hosts: made once, closed with this."""
        with self._lock:
            if key not in self._shared:
                self._shared[key] = cast(Closes, make())
            return cast(T, self._shared[key])

    def close(self) -> None:
        """Close all that is shared."""
        with self._lock:
            held, self._shared = list(self._shared.values()), {}
        for each in held:
            with suppress(OSError):
                each.close()


@dataclass(frozen=True)
class PortState:
    """A port as its device tells it.

    Attributes:
        name: the device's name of it. up: set up. carrier: a signal from the other end.
        mtu: bytes of the largest IP packet. mac: as ``02:00:…``. speed: bit/s, None where the device does not say.
    """

    name: str
    up: bool
    carrier: bool
    mtu: int
    mac: str
    speed: int | None = None


class Does(StrEnum):
    """What a route of a uSID table does."""

    FORWARD = "forward"
    UN = "un"
    DROP = "drop"


@dataclass(frozen=True, order=True)
class UsidRoute:
    """A static route for uSIDs.

    Attributes:
        prefix: as text, such as ``5f00:0:1000::/48``.
        does: forward to ``port``; shift the own uSID out and look the rest up (uN, next-csid); or drop and count.
        port: the device's name of the port; empty for the other two.
    """

    prefix: str
    does: Does
    port: str = ""


class Driver(Protocol):
    """What every driver is. Made as ``Class(device, access)``, which contacts nobody."""

    device: Device
    #: Names of what it can do.
    capabilities: frozenset[str]
    #: Device, version and date, or ``NEVER_ON_HARDWARE``.
    verified_on: str
    #: Capability that one might expect and it lacks → why.
    refused: Mapping[str, str]

    def version(self) -> str:
        """What runs on the device, in one line: the first thing to ask. Raises what its transport raises."""
        ...

    def undo(self, inverse: Inverse, under: Change) -> None:
        """Undo a change by what was journalled for it; nothing where that is done already, or was never made.

        Raises UsageError for an inverse that this driver did not write, and what its transport raises.
        """
        ...


@runtime_checkable
class LinkControl(Protocol):
    """``ports``: states of ports, and setting them up and down."""

    def ports(self) -> Mapping[str, PortState]:
        """Port of the fabric → its state; those of the cable map alone."""
        ...

    def set_port(self, port: str, *, up: bool, changes: Changes) -> Change | None:
        """Set a port of the fabric up or down; the change to undo, or None where it was so already."""
        ...


@runtime_checkable
class PortCounters(Protocol):
    """``counters``: of ports."""

    def port_counters(self) -> Mapping[str, Mapping[str, int]]:
        """Port of the fabric → 64-bit counters named as in rtnl_link_stats64."""
        ...


@runtime_checkable
class UsidRoutes(Protocol):
    """``usids``: a table of static uSID routes."""

    def usid_routes(self, block: str) -> Sequence[UsidRoute]:
        """What of the block the device has, whoever installed it; sorted."""
        ...

    def install(
        self, block: str, routes: Sequence[UsidRoute], peers: Mapping[str, str], changes: Changes
    ) -> list[Change]:
        """Have the block's table be exactly this, and read it back.

        Args:
            block: the /32 of all uSIDs; no route outside of it is touched.
            routes: what is wanted.
            peers: the device's port → MAC address of the port at the other end.
            changes: the journal.

        Returns what is to be undone, in the order it was made. Raises InfrastructureError where the device, read back,
        has something else.
        """
        ...
