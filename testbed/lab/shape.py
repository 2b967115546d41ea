"""The numbers of a fabric and the names that follow from them, by arithmetic: nothing here enumerates.

Host *i* has T0 number ``i // hosts_per_t0`` in every plane and hangs on its downlink ``i % hosts_per_t0``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from testbed.errors import LabError
from testbed.lab.suggest import suggest


class Tier(StrEnum):
    """Where a node stands in the Clos."""

    HOST = "host"
    T0 = "t0"
    T1 = "t1"


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a link.

    ``name`` is the interface name: ``p3`` on a host, ``d0`` or ``t1-0`` on a T0, ``t0-0`` on a T1.
    """

    node: str
    name: str

    def __str__(self) -> str:
        return f"{self.node}:{self.name}"


@dataclass(frozen=True, slots=True)
class Link:
    """A link by its name, ``h7:p3~p3-t0-1`` or ``p3-t0-1~p3-t1-0``; ``a`` is the end in the lower tier."""

    name: str
    a: Port
    b: Port
    plane: int


class NodeId(NamedTuple):
    """A node as numbers; ``plane`` is None for a host."""

    tier: Tier
    plane: int | None
    number: int


_N = r"(0|[1-9]\d{0,5})"
PLANE_NAME = re.compile(rf"p{_N}")
HOST_NAME = re.compile(rf"h{_N}")
_SWITCH = re.compile(rf"p{_N}-t([01])-{_N}")
_HOST_PORT = re.compile(rf"h{_N}:p{_N}")
_DOWN_PORT = re.compile(rf"p{_N}-t0-{_N}:d{_N}")
_UP_PORT = re.compile(rf"p{_N}-t([01])-{_N}:t([01])-{_N}")
_ACCESS = re.compile(rf"h{_N}:p{_N}~p{_N}-t0-{_N}")
_UPLINK = re.compile(rf"p{_N}-t0-{_N}~p{_N}-t1-{_N}")


def t0_name(plane: int, index: int) -> str:
    """``p3-t0-1``."""
    return f"p{plane}-t0-{index}"


def t1_name(plane: int, index: int) -> str:
    """``p3-t1-1``."""
    return f"p{plane}-t1-{index}"


@dataclass(frozen=True, slots=True)
class Absence:
    """What is left out: ``(plane, index)`` of switches, ``(plane, host)`` and ``(plane, t0, t1)`` of links."""

    planes: frozenset[int] = frozenset()
    hosts: frozenset[int] = frozenset()
    t0s: frozenset[tuple[int, int]] = frozenset()
    t1s: frozenset[tuple[int, int]] = frozenset()
    accesses: frozenset[tuple[int, int]] = frozenset()
    uplinks: frozenset[tuple[int, int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Shape:
    """The counts of a fabric and what it leaves out."""

    planes: int
    t0_per_plane: int
    t1_per_plane: int
    hosts_per_t0: int
    absence: Absence = field(default_factory=Absence)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The four numbers a shape is made of, in the order of its fields."""
        return self.planes, self.t0_per_plane, self.t1_per_plane, self.hosts_per_t0

    @property
    def host_count(self) -> int:
        """Hosts the counts ask for, absent ones included."""
        return self.t0_per_plane * self.hosts_per_t0

    # -- what is there ------------------------------------------------------------------------------------------

    def has_plane(self, plane: int) -> bool:
        """Whether the plane exists and is not left out."""
        return 0 <= plane < self.planes and plane not in self.absence.planes

    def has_host(self, host: int) -> bool:
        """Whether the host exists and is not left out."""
        return 0 <= host < self.host_count and host not in self.absence.hosts

    def has_t0(self, plane: int, index: int) -> bool:
        """Whether the T0 exists and neither it nor its plane is left out."""
        return self.has_plane(plane) and 0 <= index < self.t0_per_plane and (plane, index) not in self.absence.t0s

    def has_t1(self, plane: int, index: int) -> bool:
        """Whether the T1 exists and neither it nor its plane is left out."""
        return self.has_plane(plane) and 0 <= index < self.t1_per_plane and (plane, index) not in self.absence.t1s

    def has_access(self, plane: int, host: int) -> bool:
        """Whether the host's link on this plane exists, with both its ends."""
        return (
            self.has_host(host)
            and self.has_t0(plane, host // self.hosts_per_t0)
            and (plane, host) not in self.absence.accesses
        )

    def has_uplink(self, plane: int, t0: int, t1: int) -> bool:
        """Whether the T0–T1 link exists, with both its ends."""
        return self.has_t0(plane, t0) and self.has_t1(plane, t1) and (plane, t0, t1) not in self.absence.uplinks

    def has_node(self, node: NodeId) -> bool:
        """Whether the node exists and is not left out."""
        if node.plane is None:
            return self.has_host(node.number)
        return (self.has_t0 if node.tier is Tier.T0 else self.has_t1)(node.plane, node.number)

    def accesses(self, plane: int) -> Iterator[int]:
        """The hosts that have a link on this plane."""
        return (host for host in range(self.host_count) if self.has_access(plane, host))

    def uplinks(self, plane: int) -> Iterator[tuple[int, int]]:
        """``(t0, t1)`` of every T0–T1 link of this plane."""
        t1s = [t1 for t1 in range(self.t1_per_plane) if self.has_t1(plane, t1)]
        return ((t0, t1) for t0 in range(self.t0_per_plane) for t1 in t1s if self.has_uplink(plane, t0, t1))

    # -- names --------------------------------------------------------------------------------------------------

    def access(self, plane: int, host: int) -> Link:
        """The link of a host on a plane."""
        t0 = t0_name(plane, host // self.hosts_per_t0)
        port = Port(f"h{host}", f"p{plane}")
        return Link(f"h{host}:p{plane}~{t0}", port, Port(t0, f"d{host % self.hosts_per_t0}"), plane)

    def uplink(self, plane: int, t0: int, t1: int) -> Link:
        """The link between a T0 and a T1 of a plane."""
        lower, upper = t0_name(plane, t0), t1_name(plane, t1)
        return Link(f"{lower}~{upper}", Port(lower, f"t1-{t1}"), Port(upper, f"t0-{t0}"), plane)

    def parse_node(self, name: str) -> NodeId | None:
        """The numbers of a node this shape counts (left out or not), or None."""
        if match := HOST_NAME.fullmatch(name):
            host = int(match[1])
            return NodeId(Tier.HOST, None, host) if host < self.host_count else None
        if match := _SWITCH.fullmatch(name):
            plane, index = int(match[1]), int(match[3])
            tier, count = (Tier.T0, self.t0_per_plane) if match[2] == "0" else (Tier.T1, self.t1_per_plane)
            return NodeId(tier, plane, index) if plane < self.planes and index < count else None
        return None

    def node(self, name: str) -> NodeId:
        """The numbers of a node of this lab.

        Raises:
            LabError: no such node (with the nearest name), or the lab leaves it out.
        """
        found = self.parse_node(name)
        if found is None:
            raise self.unknown(name, "node")
        if not self.has_node(found):
            raise LabError(
                f"{name} is left out of this lab",
                found=name,
                remedy=f"remove it from the lab's `absent`, or use another node than {name}",
            )
        return found

    def host(self, name: str) -> int:
        """The number of a host of this lab.

        Raises:
            LabError: no such host, or the lab leaves it out, or the name is a switch's.
        """
        found = self.node(name)
        if found.tier is not Tier.HOST:
            raise LabError(f"{name} is a switch", found=name, expected="a host", nearest="h0")
        return found.number

    def parse_host_port(self, name: str) -> tuple[int, int] | None:
        """``(plane, host)`` of ``h7:p3`` where this shape counts such a port, else None."""
        match = _HOST_PORT.fullmatch(name)
        if match is None:
            return None
        host, plane = int(match[1]), int(match[2])
        return (plane, host) if host < self.host_count and plane < self.planes else None

    def parse_link(self, name: str) -> tuple[int, int] | tuple[int, int, int] | None:
        """``(plane, host)`` or ``(plane, t0, t1)`` of the link with this name, or with a port of this name."""
        if match := _ACCESS.fullmatch(name):
            host, plane, same, t0 = (int(part) for part in match.groups())
            fits = plane == same and host // self.hosts_per_t0 == t0
            return self.parse_host_port(f"h{host}:p{plane}") if fits else None
        if match := _UPLINK.fullmatch(name):
            plane, t0, same, t1 = (int(part) for part in match.groups())
            return self._counted(plane, t0, t1) if plane == same else None
        if match := _DOWN_PORT.fullmatch(name):
            plane, t0, downlink = (int(part) for part in match.groups())
            host = t0 * self.hosts_per_t0 + downlink
            return self.parse_host_port(f"h{host}:p{plane}") if downlink < self.hosts_per_t0 else None
        if match := _UP_PORT.fullmatch(name):
            plane, tier, index, other_tier, other = (int(part) for part in match.groups())
            t0, t1 = (index, other) if tier == 0 else (other, index)
            return self._counted(plane, t0, t1) if tier != other_tier else None
        return self.parse_host_port(name)

    def _counted(self, plane: int, t0: int, t1: int) -> tuple[int, int, int] | None:
        fits = plane < self.planes and t0 < self.t0_per_plane and t1 < self.t1_per_plane
        return (plane, t0, t1) if fits else None

    # -- helping with wrong names -------------------------------------------------------------------------------

    def unknown(self, name: str, what: str, *, near: bool = True) -> LabError:
        """The error for a name this lab does not have; ``near`` looks for the nearest one, which takes a while."""
        close = suggest(self, name, link=what == "link") if near else ""
        return LabError(
            f"this lab has no {what} {name!r}",
            found=name,
            expected=self.expected_links() if what == "link" else self.expected(),
            # A name of another kind, such as a link's where a node is asked for, is near to nothing but itself.
            nearest=close if close != name else "",
        )

    def expected_links(self) -> str:
        """How links are named, by the first of each kind."""
        names = [self.access(0, 0).name]
        if self.t1_per_plane:
            names.append(self.uplink(0, 0, 0).name)
        return "a link by its two ends, lower tier first, such as " + " or ".join(names)

    def expected(self) -> str:
        """Which names there are, in one line."""
        parts = [
            f"h0…h{self.host_count - 1}",
            f"p0…p{self.planes - 1}",
            f"p0-t0-0…p{self.planes - 1}-t0-{self.t0_per_plane - 1}",
        ]
        if self.t1_per_plane:
            parts.append(f"p0-t1-0…p{self.planes - 1}-t1-{self.t1_per_plane - 1}")
        return ", ".join(parts)
