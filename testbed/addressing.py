"""Static SRv6 addressing: EV ↔ path ↔ destination address.

The outer IPv6 destination is a 32-bit locator block and up to six 16-bit uSIDs (F3216, RFC 9800). Every switch on the
path is named (uN), then the host's port: T0, T1, T0, port across T1s, or T0, port below one T0. A switch that finds its
own uSID first shifts the list left by 16 bits and looks the result up again.

An entropy value (EV) is 32 bits: the plane in bits 0–2, the T0's uplink, that is the T1's number, in bits 3–11, the
rest zero. Below one T0 the uplink is 0 and only the plane counts.

Everything here is arithmetic on the lab's counts; a fabric of 131,072 hosts costs no more than one of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

from testbed.errors import LabError
from testbed.lab.model import Lab
from testbed.lab.shape import Link, NodeId, Tier, t0_name, t1_name
from testbed.lab.usids import ORDINARY, UsidTable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["ORDINARY", "AddressPlan", "Path", "pack_ev", "unpack_ev"]

MAX_USIDS: Final = 6
_PLANE_BITS: Final = 3
_UPLINK_BITS: Final = 9
_EV_BITS: Final = _PLANE_BITS + _UPLINK_BITS
#: Subnets of the NIC prefix: 0 holds the inner addresses, 0x10 + plane the outer ones.
_OUTER_SUBNET: Final = 0x10
#: Set in every interface identifier, so that none is the all-zero subnet-router anycast address (RFC 4291 §2.6.1).
_INTERFACE: Final = 1 << 48


def pack_ev(plane: int, uplink: int) -> int:
    """The EV of a plane and a T0 uplink."""
    return plane | uplink << _PLANE_BITS


def unpack_ev(ev: int) -> tuple[int, int]:
    """``(plane, uplink)`` of an EV."""
    return ev & (1 << _PLANE_BITS) - 1, ev >> _PLANE_BITS


@dataclass(frozen=True, slots=True)
class Path:
    """A way through one plane: the ``nodes`` passed, source first; the ``links`` between them; the ``usids`` that steer."""

    plane: int
    nodes: tuple[str, ...]
    links: tuple[Link, ...]
    usids: tuple[int, ...]


class AddressPlan:
    """All addresses of a lab. Every method raises LabError for names the lab does not have or leaves out."""

    def __init__(self, lab: Lab) -> None:
        self.shape = lab.shape
        self.block: IPv6Network = lab.addressing.block
        self.nic_prefix: IPv6Network = lab.addressing.nic_prefix
        self._block = int(self.block.network_address)
        self._usids = UsidTable(lab.shape, lab.addressing.usids)
        self._uplinks = lru_cache(maxsize=4096)(self._uplinks_between)

    # -- single addresses ---------------------------------------------------------------------------------------

    def usid(self, name: str) -> int:
        """The uSID of a switch (``p3-t0-1``) or of a host's port (``h7:p3``)."""
        port = self.shape.parse_host_port(name)
        if port is not None:
            self._check_access(*port)
            return self._usids.port(*port)
        node = self.shape.node(name)
        if node.plane is None:
            raise LabError(f"{name} has one uSID for each of its ports", found=name, nearest=f"{name}:p0")
        return (self._usids.t0 if node.tier is Tier.T0 else self._usids.t1)(node.plane, node.index)

    def sid(self, switch: str) -> IPv6Network:
        """The uN of a switch as the /48 it installs."""
        self._switch(switch)
        return IPv6Network((self._address((self.usid(switch),)), 48))

    def nic_address(self, host: str) -> IPv6Address:
        """The inner address of a host's NIC, the same on all planes."""
        return IPv6Address(int(self.nic_prefix.network_address) | _INTERFACE | self.shape.host(host))

    def port_address(self, host: str, plane: int) -> IPv6Address:
        """The outer source address of a host on a plane."""
        number = self.shape.host(host)
        self._check_access(plane, number)
        subnet = (_OUTER_SUBNET | plane) << 64
        return IPv6Address(int(self.nic_prefix.network_address) | subnet | _INTERFACE | number)

    # -- EV → path → destination --------------------------------------------------------------------------------

    def evs(self, src: str, dst: str) -> tuple[int, ...]:
        """All EVs that lead from one host to another over what the lab has, ascending by plane, then uplink."""
        a, b = self._pair(src, dst)
        return tuple(self._usable(a, b))

    def path(self, src: str, dst: str, ev: int) -> Path:
        """The path an EV stands for.

        Raises:
            LabError: the EV is no path of this pair; the text says which part of it is wrong.

        """
        a, b = self._pair(src, dst)
        plane, uplink = self._checked_ev(ev)
        t0, far = a // self.shape.hosts_per_t0, b // self.shape.hosts_per_t0
        if t0 == far:
            if uplink:
                raise self._bad_ev(ev, f"{src} and {dst} hang on one T0: the uplink is 0")
            return self._path(plane, a, [NodeId(Tier.T0, plane, t0)], b)
        if uplink >= self.shape.t1_per_plane:
            raise self._bad_ev(ev, f"a T0 has uplinks 0…{self.shape.t1_per_plane - 1}")
        switches = [NodeId(Tier.T0, plane, t0), NodeId(Tier.T1, plane, uplink), NodeId(Tier.T0, plane, far)]
        return self._path(plane, a, switches, b)

    def ev(self, path: Path) -> int:
        """The EV of a path between two hosts; the inverse of :meth:`path`."""
        nodes = [self.shape.node(name) for name in path.nodes]
        tiers = [node.tier for node in nodes]
        if nodes[0] != nodes[-1] and tiers == [Tier.HOST, Tier.T0, Tier.HOST]:
            return pack_ev(path.plane, 0)
        across = [Tier.HOST, Tier.T0, Tier.T1, Tier.T0, Tier.HOST]
        if nodes[1] != nodes[-2] and tiers == across:
            return pack_ev(path.plane, nodes[2].index)
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
        own = NodeId(Tier.T0, plane, host // self.shape.hosts_per_t0)
        out = [self._switch(name) for name in via]
        if not out or out[0] != own:
            out.insert(0, own)
        tiers = [node.tier for node in out]
        fits = tiers == [Tier.T0, Tier.T1, Tier.T0][: len(tiers)] and all(node.plane == plane for node in out)
        if not fits or (len(out) == 3 and out[2] == own):
            t1 = t1_name(plane, 0) if self.shape.t1_per_plane else "a T1"
            expected = f"nothing, {t1}, or {t1} and a far T0 of plane {plane}"
            raise LabError(f"no round trip from {src}:p{plane} goes this way", found=", ".join(via), expected=expected)
        return self._address(self._path(plane, host, out + out[-2::-1], host).usids)

    # -- destination → path -------------------------------------------------------------------------------------

    def decode(self, src: str, plane: int, address: IPv6Address) -> Path:
        """Where a packet with this destination goes, sent by a host into a plane: what the switches' tables do.

        Round trips decode too. ``…:port:d006::`` decodes to the path without :data:`ORDINARY`.

        Raises:
            LabError: some node drops it; the text names the node and the uSID it does not know.

        """
        host = self.shape.host(src)
        self._check_access(plane, host)
        if address not in self.block:
            raise LabError(
                f"{src} has no route for {address}", found=str(address), expected=f"an address in {self.block}"
            )
        usids = [int(address) >> shift & 0xFFFF for shift in range(80, -1, -16)]
        t0 = host // self.shape.hosts_per_t0
        if usids[0] != self._usids.t0(plane, t0):
            raise self._dropped(f"h{host}", address, usids[0])
        switches = [NodeId(Tier.T0, plane, t0)]
        for position, usid in enumerate(usids[1:], 1):
            here = switches[-1]
            following = self._next(here, usid)
            if isinstance(following, NodeId):
                switches.append(following)
            elif following is None:
                raise self._dropped(self._name(here), address, usid)
            else:
                rest = usids[position + 1 :]
                if any(rest) and (rest[0] != ORDINARY or any(rest[1:])):
                    raise self._dropped(f"h{following}", address, rest[0])
                return self._path(plane, host, switches, following)
        raise LabError("this list of uSIDs ends at no host", where=str(address), found=self._name(switches[-1]))

    def _next(self, here: NodeId, usid: int) -> NodeId | int | None:
        """What a switch's table leads to: a switch, a host's number, or nothing."""
        plane = here.plane
        assert plane is not None
        if here.tier is Tier.T1:
            t0 = self._usids.find_t0(plane, usid)
            reached = t0 is not None and self.shape.has_uplink(plane, t0, here.index)
            return NodeId(Tier.T0, plane, t0) if reached and t0 is not None else None
        t1 = self._usids.find_t1(plane, usid)
        if t1 is not None and self.shape.has_uplink(plane, here.index, t1):
            return NodeId(Tier.T1, plane, t1)
        host = self._usids.find_port(plane, here.index, usid)
        return host if host is not None and self.shape.has_access(plane, host) else None

    # -- many at once -------------------------------------------------------------------------------------------

    def destination_table(
        self, src: str, dst: str, evs: Sequence[int] | npt.NDArray[np.unsignedinteger]
    ) -> npt.NDArray[np.uint8]:
        """The destinations of many EVs as a ``(n, 16)`` array of bytes in network order; row i is for ``evs[i]``.

        Raises:
            LabError: an EV is no path of this pair; the first such is named.

        """
        import numpy as np

        a, b = self._pair(src, dst)
        values = np.asarray(evs, dtype=np.int64)
        wrong = ~np.isin(values, np.fromiter(self._usable(a, b), dtype=np.int64))
        if wrong.any():
            self.path(src, dst, int(values[wrong][0]))
        plane, uplink = values & (1 << _PLANE_BITS) - 1, values >> _PLANE_BITS
        t0, far = a // self.shape.hosts_per_t0, b // self.shape.hosts_per_t0
        planes = range(self.shape.planes)
        first = np.array([self._usids.t0(p, t0) for p in planes], dtype=">u2")[plane]
        last = np.array([self._usids.port(p, b) for p in planes], dtype=">u2")[plane]
        words = np.zeros((len(values), 8), dtype=">u2")
        words[:, 0], words[:, 1] = self._block >> 112, self._block >> 96 & 0xFFFF
        words[:, 2] = first
        if t0 == far:
            words[:, 3] = last
        else:
            t1s = [[self._usids.t1(p, t1) for t1 in range(self.shape.t1_per_plane)] for p in planes]
            words[:, 3] = np.array(t1s, dtype=">u2")[plane, uplink]
            words[:, 4] = np.array([self._usids.t0(p, far) for p in planes], dtype=">u2")[plane]
            words[:, 5] = last
        return words.view(np.uint8)

    # -- parts --------------------------------------------------------------------------------------------------

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

    def _uplinks_between(self, plane: int, t0: int, far: int) -> tuple[int, ...]:
        """The T1s over which two T0s of a plane reach each other."""
        has = self.shape.has_uplink
        return tuple(t1 for t1 in range(self.shape.t1_per_plane) if has(plane, t0, t1) and has(plane, far, t1))

    def _usable(self, a: int, b: int) -> Iterator[int]:
        t0, far = a // self.shape.hosts_per_t0, b // self.shape.hosts_per_t0
        for plane in range(self.shape.planes):
            if self.shape.has_access(plane, a) and self.shape.has_access(plane, b):
                uplinks = (0,) if t0 == far else self._uplinks(plane, t0, far)
                yield from (pack_ev(plane, uplink) for uplink in uplinks)

    def _checked_ev(self, ev: int) -> tuple[int, int]:
        if not 0 <= ev < 1 << _EV_BITS:
            raise self._bad_ev(ev, f"bits {_EV_BITS} and above are zero")
        plane, uplink = unpack_ev(ev)
        if plane >= self.shape.planes:
            raise self._bad_ev(ev, f"planes 0…{self.shape.planes - 1} in bits 0–2")
        return plane, uplink

    def _bad_ev(self, ev: int, expected: str) -> LabError:
        plane, uplink = unpack_ev(ev)
        return LabError(
            "this EV is no path of the pair", found=f"{ev:#06x}: plane {plane}, uplink {uplink}", expected=expected
        )

    def _switch(self, name: str) -> NodeId:
        node = self.shape.node(name)
        if node.plane is None:
            raise LabError(f"{name} is a host", found=name, expected="a switch, such as p0-t0-0")
        return node

    def _check_access(self, plane: int, host: int) -> None:
        if not self.shape.has_access(plane, host):
            raise LabError(f"h{host} has no link on plane {plane} in this lab", found=f"h{host}:p{plane}")

    @staticmethod
    def _name(node: NodeId) -> str:
        assert node.plane is not None
        return (t0_name if node.tier is Tier.T0 else t1_name)(node.plane, node.index)

    def _dropped(self, node: str, address: IPv6Address, usid: int) -> LabError:
        return LabError(f"{node} drops {address}", found=f"uSID {usid:#06x}", expected=f"a uSID that {node} knows")

    def _path(self, plane: int, src: int, switches: Sequence[NodeId], dst: int) -> Path:
        """The path over these switches of one plane, its links checked."""
        shape = self.shape
        self._check_access(plane, src)
        self._check_access(plane, dst)
        links = [shape.access(plane, src)]
        usids = []
        for here, following in zip(switches, [*switches[1:], None], strict=True):
            usids.append((self._usids.t0 if here.tier is Tier.T0 else self._usids.t1)(plane, here.index))
            if following is not None:
                t0, t1 = (here.index, following.index) if here.tier is Tier.T0 else (following.index, here.index)
                link = shape.uplink(plane, t0, t1)
                if not shape.has_uplink(plane, t0, t1):
                    raise LabError(f"{link.name} is left out of this lab", found=link.name)
                links.append(link)
        links.append(shape.access(plane, dst))
        usids.append(self._usids.port(plane, dst))
        nodes = (f"h{src}", *map(self._name, switches), f"h{dst}")
        return Path(plane, nodes, tuple(links), tuple(usids))
