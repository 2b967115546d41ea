"""The loops of a prober: ways from a host's port out over switches and back, each steered by its uSIDs alone.

Three kinds, the first two after the paper's Clustermapper:

- *T0*: to the host's T0 and back to the same port. One link, both directions.
- *T1*: to a T1 and back to the same port. That link and the one above it, both directions.
- *wide*: T0, T1, another T0, another T1, T0; all six uSIDs. Each of its four links above T0s is crossed in one
  direction only, and it ends at the next host of the same T0, so that the host links too are crossed in one direction
  each. Where a plane has one T1 it goes T0, T1, another T0, a host of that. This is what makes directions decidable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from testbed.addressing import AddressPlan, Path
from testbed.lab.shape import Shape, Tier, t0_name, t1_name
from testbed.localise.routes import Hop, Route


class Reach(StrEnum):
    """How far out a loop goes."""

    T0 = "T0"
    T1 = "T1"
    WIDE = "wide"


@dataclass(frozen=True, slots=True)
class Loop:
    """One way out and back. ``host``, ``end``: where it begins and ends."""

    reach: Reach
    host: str
    end: str
    path: Path

    @property
    def name(self) -> str:
        """``h0:p3 p3-t0-1 p3-t1-0 p3-t0-1 h0``."""
        return " ".join([f"{self.host}:p{self.path.plane}", *self.path.nodes[1:]])

    def route(self) -> Route:
        """As a localiser sees it."""
        nodes = self.path.nodes
        hops = tuple(
            Hop(link.name, tail, head) for link, tail, head in zip(self.path.links, nodes[:-1], nodes[1:], strict=True)
        )
        return Route(self.name, self.path.plane, hops)


def loops(addresses: AddressPlan, hosts: Sequence[str]) -> list[Loop]:
    """The loops between these hosts' ports, by host, plane and reach. ``hosts``: served by one process."""
    return [
        loop
        for host in hosts
        for plane in range(addresses.shape.planes)
        if addresses.shape.has_access(plane, addresses.shape.host(host))
        for loop in _of_port(addresses, hosts, host, plane)
    ]


def _of_port(addresses: AddressPlan, hosts: Sequence[str], host: str, plane: int) -> Iterator[Loop]:
    shape = addresses.shape
    number = shape.host(host)
    own = number // shape.hosts_per_t0
    t0 = t0_name(plane, own)
    yield Loop(Reach.T0, host, host, addresses.through(host, plane, [t0]))
    t1s = [t1 for t1 in range(shape.t1_per_plane) if shape.has_uplink(plane, own, t1)]
    for t1 in t1s:
        yield Loop(Reach.T1, host, host, addresses.through(host, plane, [t0, t1_name(plane, t1), t0]))
    for via, end in _wide(shape, {shape.host(name) for name in hosts}, number, plane, t1s):
        switches = [t0_name(plane, n) if tier is Tier.T0 else t1_name(plane, n) for tier, n in via]
        name = f"h{end}"
        yield Loop(Reach.WIDE, host, name, addresses.through(host, plane, switches, name))


_Via = tuple[list[tuple[Tier, int]], int]


def _wide(shape: Shape, hosts: set[int], host: int, plane: int, t1s: Sequence[int]) -> Iterator[_Via]:
    """The wide loops of a port: switches by tier and number, and the host at the end."""
    own = host // shape.hosts_per_t0
    below = _below(shape, hosts, plane, own)
    following = below[(below.index(host) + 1) % len(below)]
    if not t1s and following != host:
        yield [(Tier.T0, own)], following
    downlink = host % shape.hosts_per_t0
    for place, t1 in enumerate(t1s):
        # Rotations: every link is crossed about as often as any other, and in different company.
        far_ones = _after(range(shape.t0_per_plane), own, downlink + place)
        far = next((t0 for t0 in far_ones if shape.has_uplink(plane, t0, t1)), None)
        if far is None:
            if following != host:
                yield [(Tier.T0, own), (Tier.T1, t1), (Tier.T0, own)], following
            continue
        way = [(Tier.T0, own), (Tier.T1, t1), (Tier.T0, far)]
        back = next((other for other in _after(t1s, place, downlink) if shape.has_uplink(plane, far, other)), None)
        if back is not None:
            yield [*way, (Tier.T1, back), (Tier.T0, own)], following
        elif ends := _below(shape, hosts, plane, far):
            yield way, ends[(downlink + place) % len(ends)]


def _after(choices: Sequence[int], place: int, turn: int) -> list[int]:
    """The choices that follow the one at ``place`` in a ring, those first that come ``turn`` later."""
    others = [*choices[place + 1 :], *choices[:place]]
    at = turn % len(others) if others else 0
    return others[at:] + others[:at]


def _below(shape: Shape, hosts: set[int], plane: int, t0: int) -> list[int]:
    """The hosts of a T0 that have a port on this plane."""
    first = t0 * shape.hosts_per_t0
    return [n for n in range(first, first + shape.hosts_per_t0) if n in hosts and shape.has_access(plane, n)]
