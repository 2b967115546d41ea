"""The address plan of a lab: every address in it, and EV ↔ path ↔ destination."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

from testbed.addressing.ev import EV_BITS, PLANE_BITS, PLANE_MASK, pack_ev, unpack_ev
from testbed.addressing.forwarding import walk
from testbed.addressing.paths import Path, Paths, switch_name
from testbed.errors import LabError
from testbed.lab import Lab
from testbed.lab.shape import Link, NodeId, Tier, t1_name
from testbed.lab.usids import ORDINARY, UsidTable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Subnets of the NIC prefix: 0 holds the inner addresses, 0x10 + plane the outer ones.
_OUTER_SUBNET: Final = 0x10
#: Set in every interface identifier, so that none is the all-zero subnet-router anycast address (RFC 4291 §2.6.1).
_INTERFACE: Final = 1 << 48
#: The same of addresses that several hosts share.
_SHARED: Final = 2 << 48


class AddressPlan:
    """All addresses of a lab. Every method raises LabError for names the lab does not have or leaves out."""

    def __init__(self, lab: Lab) -> None:
        self.shape = lab.shape
        self.block: IPv6Network = lab.addressing.block
        self.nic_prefix: IPv6Network = lab.addressing.nic_prefix
        self._block = int(self.block.network_address)
        self._usids = UsidTable(lab.shape, lab.addressing.usids)
        self._paths = Paths(lab.shape, self._usids)

    def usid(self, name: str) -> int:
        """The uSID of a switch (``p3-t0-1``) or of a host's port (``h7:p3``)."""
        port = self.shape.parse_host_port(name)
        if port is not None:
            self._paths.check_access(*port)
            return self._usids.port(*port)
        node = self.shape.node(name)
        if node.plane is None:
            raise LabError(f"{name} has one uSID for each of its ports", found=name, nearest=f"{name}:p0")
        return (self._usids.t0 if node.tier is Tier.T0 else self._usids.t1)(node.plane, node.number)

    def sid(self, switch: str) -> IPv6Network:
        """The uN of a switch as the /48 it installs."""
        self._switch(switch)
        return IPv6Network((self._address((self.usid(switch),)), 48))

    def nic_address(self, host: str) -> IPv6Address:
        """The inner address of a host's NIC, the same on all planes."""
        return IPv6Address(int(self.nic_prefix.network_address) | _INTERFACE | self.shape.host(host))

    def shared_address(self, number: int = 1) -> IPv6Address:
        """An inner address that is no host's own: for several to hold."""
        return IPv6Address(int(self.nic_prefix.network_address) | _SHARED | number)

    def port_address(self, host: str, plane: int) -> IPv6Address:
        """The outer source address of a host on a plane."""
        number = self.shape.host(host)
        self._paths.check_access(plane, number)
        subnet = (_OUTER_SUBNET | plane) << 64
        return IPv6Address(int(self.nic_prefix.network_address) | subnet | _INTERFACE | number)

    def evs(self, src: str, dst: str) -> tuple[int, ...]:
        """All EVs that lead from one host to another over what the lab has, by plane, then uplink."""
        return tuple(self._paths.evs(*self._pair(src, dst)))

    def path(self, src: str, dst: str, ev: int) -> Path:
        """The path an EV stands for.

        Raises:
            LabError: the EV is no path of this pair; the text says which part of it is wrong.
        """
        a, b = self._pair(src, dst)
        plane, uplink = unpack_ev(ev)
        if not 0 <= ev < 1 << EV_BITS:
            raise self._bad_ev(ev, f"bits {EV_BITS} and above are zero")
        if plane >= self.shape.planes:
            raise self._bad_ev(ev, f"planes 0…{self.shape.planes - 1} in bits 0–2")
        near, far = (NodeId(Tier.T0, plane, self._paths.t0_of(host)) for host in (a, b))
        if near == far:
            if uplink:
                raise self._bad_ev(ev, f"uplink 0: {src} and {dst} hang on one T0")
            return self._paths.over(plane, a, [near], b)
        if uplink >= self.shape.t1_per_plane:
            raise self._bad_ev(ev, f"uplinks 0…{self.shape.t1_per_plane - 1} in bits 3–11")
        return self._paths.over(plane, a, [near, NodeId(Tier.T1, plane, uplink), far], b)

    def ev(self, path: Path) -> int:
        """The EV of a path between two hosts; the inverse of :meth:`path`.

        Raises:
            LabError: the path is not one that an EV stands for, for instance a round trip.
        """
        nodes = [self.shape.node(name) for name in path.nodes]
        tiers = [node.tier for node in nodes]
        if tiers == [Tier.HOST, Tier.T0, Tier.HOST] and nodes[0] != nodes[-1]:
            return pack_ev(path.plane, 0)
        if tiers == [Tier.HOST, Tier.T0, Tier.T1, Tier.T0, Tier.HOST] and nodes[1] != nodes[3]:
            return pack_ev(path.plane, nodes[2].number)
        raise LabError("this path has no EV", found=" ".join(path.nodes), expected="a shortest path between two hosts")

    def destination(self, src: str, dst: str, ev: int) -> IPv6Address:
        """The outer destination that takes a packet along the EV's path and ends at the destination's port."""
        return self._address(self.path(src, dst, ev).usids)

    def ordinary_destination(self, src: str, dst: str, ev: int) -> IPv6Address:
        """The same, ending where the host decapsulates ordinary IPv6: ``…:port:d006::``."""
        return self._address((*self.path(src, dst, ev).usids, ORDINARY))

    def hops(self, src: str, dst: str, ev: int) -> tuple[tuple[Link, IPv6Address], ...]:
        """The links of the path, each with the destination as seen on it: every switch shifts one uSID out."""
        path = self.path(src, dst, ev)
        return tuple((link, self._address(path.usids[shifts:])) for shifts, link in enumerate(path.links))

    def round_trip(self, src: str, plane: int, via: Sequence[str] = ()) -> IPv6Address:
        """A destination that leads from a host's port out and back to the same port: what a link prober sends.

        Args:
            src: the host.
            plane: which of its ports.
            via: the switches on the way out, after the host's own T0, which may be named or left out. Empty turns at
                that T0; a T1 turns there; a T1 and another T0 turns at that T0 and uses all six uSIDs. The way
                back is the way out reversed.

        Raises:
            LabError: these switches are not on such a way, or a link of it is left out.
        """
        host = self.shape.host(src)
        own = NodeId(Tier.T0, plane, self._paths.t0_of(host))
        out = [self._switch(name) for name in via]
        if not out or out[0] != own:
            out.insert(0, own)
        fits = len(out) <= 3 and [node.tier for node in out] == [Tier.T0, Tier.T1, Tier.T0][: len(out)]
        if not fits or any(node.plane != plane for node in out) or own in out[1:]:
            t1 = t1_name(plane, 0) if self.shape.t1_per_plane else "a T1"
            expected = f"nothing; {t1}; or {t1} and a far T0 of plane {plane}"
            raise LabError(f"no round trip from {src}:p{plane} goes this way", found=", ".join(via), expected=expected)
        return self._address(self._paths.over(plane, host, out + out[-2::-1], host).usids)

    def through(self, src: str, plane: int, switches: Sequence[str], dst: str | None = None) -> Path:
        """The way from a host's port over these switches to a host's port on the same plane, its own by default.

        Args:
            src: the host.
            plane: which of its ports.
            switches: T0 and T1 in turn, from the T0 of ``src`` to that of ``dst``; one, three or five, the last filling
                all six uSIDs. A link may be on the way several times.
            dst: the host at the end.

        Raises:
            LabError: these switches do not lead from one to the other, are too many, or a link is left out.
        """
        a, b = self.shape.host(src), self.shape.host(src if dst is None else dst)
        nodes = [self._switch(name) for name in switches]
        ends = [NodeId(Tier.T0, plane, self._paths.t0_of(host)) for host in (a, b)]
        tiers = [(Tier.T0, Tier.T1)[number % 2] for number in range(len(nodes))]
        fits = len(nodes) in (1, 3, 5) and [nodes[0], nodes[-1]] == ends and [node.tier for node in nodes] == tiers
        if not fits or any(node.plane != plane for node in nodes):
            first, last = (switch_name(end) for end in ends)
            way = first if first == last else f"{first} to {last}"
            raise LabError(
                f"no way from h{a}:p{plane} to h{b}:p{plane} goes over these switches",
                found=", ".join(switches) or "none",
                expected=f"T0 and T1 in turn from {way}, at most five",
            )
        return self._paths.over(plane, a, nodes, b)

    def steer(self, path: Path) -> IPv6Address:
        """The outer destination that takes a packet along a path."""
        return self._address(path.usids)

    def decode(self, src: str, plane: int, address: IPv6Address) -> Path:
        """Where a packet with this destination goes that a host sends into a plane: what the switches' tables do.

        Round trips decode too. ``…:port:d006::`` decodes to the path without that last uSID.

        Raises:
            LabError: some node drops it; the text names the node and the uSID it does not know.
        """
        host = self.shape.host(src)
        self._paths.check_access(plane, host)
        if address not in self.block:
            expected = f"an address in {self.block}"
            raise LabError(f"{src} has no route for {address}", found=str(address), expected=expected)
        return walk(self._paths, plane, host, address)

    def destination_table(
        self, src: str, dst: str, evs: Sequence[int] | npt.NDArray[np.integer]
    ) -> npt.NDArray[np.uint8]:
        """The destinations of many EVs as bytes in network order, shape ``(n, 16)``; row i is for ``evs[i]``.

        Raises:
            LabError: an EV is no path of this pair; the first such is named.
        """
        # Here, so that what only needs a few addresses starts without numpy.
        import numpy as np

        a, b = self._pair(src, dst)
        values = np.asarray(evs, dtype=np.int64).reshape(-1)
        wrong = ~np.isin(values, np.fromiter(self._paths.evs(a, b), dtype=np.int64))
        if wrong.any():
            self.path(src, dst, int(values[wrong][0]))
        plane, uplink = values & PLANE_MASK, values >> PLANE_BITS
        planes, usids = range(self.shape.planes), self._usids
        near, far = self._paths.t0_of(a), self._paths.t0_of(b)
        words = np.zeros((len(values), 8), dtype=">u2")
        words[:, 0], words[:, 1] = self._block >> 112, self._block >> 96 & 0xFFFF
        words[:, 2] = np.array([usids.t0(p, near) for p in planes])[plane]
        port = 3
        if near != far:
            uplinks = range(self.shape.t1_per_plane)
            words[:, 3] = np.array([[usids.t1(p, t1) for t1 in uplinks] for p in planes])[plane, uplink]
            words[:, 4] = np.array([usids.t0(p, far) for p in planes])[plane]
            port = 5
        words[:, port] = np.array([usids.port(p, b) for p in planes])[plane]
        return words.view(np.uint8)

    def _address(self, usids: Sequence[int]) -> IPv6Address:
        value = self._block
        for position, usid in enumerate(usids):
            value |= usid << 80 - 16 * position
        return IPv6Address(value)

    def _pair(self, src: str, dst: str) -> tuple[int, int]:
        a, b = self.shape.host(src), self.shape.host(dst)
        if a == b:
            raise LabError("a path leads from one host to another", found=f"{src} and {dst}", expected="two hosts")
        return a, b

    def _switch(self, name: str) -> NodeId:
        node = self.shape.node(name)
        if node.plane is None:
            raise LabError(f"{name} is a host", found=name, expected="a switch, such as p0-t0-0")
        return node

    @staticmethod
    def _bad_ev(ev: int, expected: str) -> LabError:
        plane, uplink = unpack_ev(ev)
        found = f"{ev:#06x}: plane {plane}, uplink {uplink}"
        return LabError("this EV is no path of the pair", found=found, expected=expected)
