"""The fabric's nodes, ports and links as objects: what a realisation builds. Enumerated once, on first use."""

from __future__ import annotations

from functools import cached_property
from itertools import chain

from testbed.errors import LabError
from testbed.lab.shape import Link, Port, Shape, Tier, t0_name, t1_name


class Topology:
    """Everything a lab has, by name. What the lab leaves out is not here.

    Order everywhere: hosts by number; switches by plane, then number; links by plane, the hosts' first.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    @cached_property
    def hosts(self) -> tuple[str, ...]:
        """``("h0", "h1", …)``."""
        return tuple(f"h{host}" for host in range(self.shape.host_count) if self.shape.has_host(host))

    @cached_property
    def t0s(self) -> tuple[str, ...]:
        """``("p0-t0-0", …)``."""
        shape = self.shape
        pairs = ((plane, i) for plane in range(shape.planes) for i in range(shape.t0_per_plane))
        return tuple(t0_name(*pair) for pair in pairs if shape.has_t0(*pair))

    @cached_property
    def t1s(self) -> tuple[str, ...]:
        """``("p0-t1-0", …)``."""
        shape = self.shape
        pairs = ((plane, i) for plane in range(shape.planes) for i in range(shape.t1_per_plane))
        return tuple(t1_name(*pair) for pair in pairs if shape.has_t1(*pair))

    @cached_property
    def switches(self) -> tuple[str, ...]:
        """All T0s, then all T1s."""
        return self.t0s + self.t1s

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """All hosts, then all switches."""
        return self.hosts + self.switches

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Every link with both its ends present."""
        shape = self.shape
        out: list[Link] = []
        for plane in range(shape.planes):
            out += [shape.access(plane, host) for host in shape.accesses(plane)]
            out += [shape.uplink(plane, t0, t1) for t0, t1 in shape.uplinks(plane)]
        return tuple(out)

    @cached_property
    def _links(self) -> dict[str, Link]:
        return {link.name: link for link in self.links}

    @cached_property
    def _ports(self) -> dict[str, tuple[Port, ...]]:
        ports: dict[str, list[Port]] = {name: [] for name in self.nodes}
        for link in self.links:
            ports[link.a.node].append(link.a)
            ports[link.b.node].append(link.b)
        return {node: tuple(found) for node, found in ports.items()}

    @cached_property
    def _port_links(self) -> dict[Port, Link]:
        return dict(chain.from_iterable(((link.a, link), (link.b, link)) for link in self.links))

    def ports(self, node: str) -> tuple[Port, ...]:
        """The node's ports that have a link.

        Raises:
            LabError: this lab has no such node.
        """
        found = self._ports.get(node)
        if found is None:
            self.shape.node(node)
            raise self.shape.unknown(node, "node")
        return found

    def link(self, name: str) -> Link:
        """The link of this name.

        Raises:
            LabError: this lab has no such link; with the nearest name.
        """
        found = self._links.get(name)
        if found is None:
            if self.shape.parse_link(name) is not None and "~" in name:
                raise LabError(
                    f"{name} is left out of this lab",
                    found=name,
                    remedy="remove it, or what it hangs on, from the lab's `absent`",
                )
            raise self.shape.unknown(name, "link")
        return found

    def link_of(self, port: Port) -> Link:
        """The link a port is an end of.

        Raises:
            LabError: this lab has no such port.
        """
        found = self._port_links.get(port)
        if found is None:
            raise self.shape.unknown(str(port), "port")
        return found

    def peer(self, port: Port) -> Port:
        """The port at the other end of this port's link.

        Raises:
            LabError: this lab has no such port.
        """
        link = self.link_of(port)
        return link.b if link.a == port else link.a

    def plane_of(self, node: str) -> int | None:
        """The plane of a switch; None for a host, which is on all of them.

        Raises:
            LabError: this lab has no such node.
        """
        return self.shape.node(node).plane

    def tier(self, node: str) -> Tier:
        """The tier of a node.

        Raises:
            LabError: this lab has no such node.
        """
        return self.shape.node(node).tier
