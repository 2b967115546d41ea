"""Paths through a fabric, by arithmetic on its shape: which there are, and which uSIDs steer along one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from testbed.addressing.ev import pack_ev
from testbed.errors import LabError
from testbed.lab.shape import Link, NodeId, Shape, Tier, t0_name, t1_name
from testbed.lab.usids import UsidTable


@dataclass(frozen=True, slots=True)
class Path:
    """A way through one plane: its ``nodes``, source first; the ``links`` between them; the ``usids`` that steer."""

    plane: int
    nodes: tuple[str, ...]
    links: tuple[Link, ...]
    usids: tuple[int, ...]


def switch_name(node: NodeId) -> str:
    """The name of a switch given as numbers."""
    assert node.plane is not None
    return (t0_name if node.tier is Tier.T0 else t1_name)(node.plane, node.number)


class Paths:
    """The paths of one lab. Hosts and switches come in as numbers."""

    def __init__(self, shape: Shape, usids: UsidTable) -> None:
        self.shape = shape
        self.usids = usids
        self.uplinks = lru_cache(maxsize=4096)(self._uplinks)

    def t0_of(self, host: int) -> int:
        """The number of a host's T0, the same in every plane."""
        return host // self.shape.hosts_per_t0

    def check_access(self, plane: int, host: int) -> None:
        """Raise LabError unless the host has a link on this plane."""
        if not self.shape.has_access(plane, host):
            expected = "one of: " + ", ".join(f"p{p}" for p in range(8) if self.shape.has_access(p, host))
            raise LabError(f"h{host} has no link on plane {plane}", found=f"h{host}:p{plane}", expected=expected)

    def _uplinks(self, plane: int, t0: int, far: int) -> tuple[int, ...]:
        """The T1s over which two T0s of a plane reach each other."""
        has = self.shape.has_uplink
        return tuple(t1 for t1 in range(self.shape.t1_per_plane) if has(plane, t0, t1) and has(plane, far, t1))

    def evs(self, src: int, dst: int) -> Iterator[int]:
        """The EVs that lead from one host to another, by plane, then uplink."""
        t0, far = self.t0_of(src), self.t0_of(dst)
        for plane in range(self.shape.planes):
            if self.shape.has_access(plane, src) and self.shape.has_access(plane, dst):
                uplinks = (0,) if t0 == far else self.uplinks(plane, t0, far)
                yield from (pack_ev(plane, uplink) for uplink in uplinks)

    def over(self, plane: int, src: int, switches: Sequence[NodeId], dst: int) -> Path:
        """The path from a host over these switches of one plane to a host.

        Raises:
            LabError: the lab leaves a link of it out.
        """
        shape = self.shape
        self.check_access(plane, src)
        self.check_access(plane, dst)
        links = [shape.access(plane, src)]
        for here, following in pairwise(switches):
            t0, t1 = (here.number, following.number) if here.tier is Tier.T0 else (following.number, here.number)
            link = shape.uplink(plane, t0, t1)
            if not shape.has_uplink(plane, t0, t1):
                raise LabError(f"this lab has no link {link.name}", found=link.name)
            links.append(link)
        links.append(shape.access(plane, dst))
        uns = [(self.usids.t0 if node.tier is Tier.T0 else self.usids.t1)(plane, node.number) for node in switches]
        nodes = (f"h{src}", *map(switch_name, switches), f"h{dst}")
        return Path(plane, nodes, tuple(links), (*uns, self.usids.port(plane, dst)))
