"""What the runner tells a NIC before it starts: its ports, its peers and the paths to them, its settings. As JSON."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from testbed.errors import UsageError
from testbed.mrc.datapath import planjson
from testbed.mrc.settings import Settings

ADDRESS_BYTES = 16
#: Port states are exchanged as a mask of eight bits.
PLANES_MOST = 8
PMTUS = (256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class NicPort:
    """A port: its plane, its interface, and the outer source address of what leaves by it."""

    plane: int
    name: str
    address: str


@dataclass(frozen=True)
class NicPeer:
    """Another NIC, and the paths to it.

    Attributes:
        name: its host's name in the lab.
        address: its NIC's inner address.
        evs: entropy values of the paths to it.
        planes: the plane of each.
        destinations: outer destination of each: hexadecimal, 32 digits each, concatenated in the order of ``evs``.
    """

    name: str
    address: str
    evs: tuple[int, ...]
    planes: tuple[int, ...]
    destinations: str


@dataclass(frozen=True)
class SharedFds:
    """Inherited descriptors of shared memory, made by :class:`testbed.mrc.datapath.shared.NicFiles`."""

    counters: int
    events: int | None = None
    sent: int | None = None
    arrivals: int | None = None


@dataclass(frozen=True)
class NicPlan:
    """One NIC.

    Attributes:
        host: the host's name in the lab.
        address: the NIC's inner address.
        ports: at most one for each plane.
        peers: the NICs it may talk to; packets of others are foreign.
        settings: see :class:`testbed.mrc.settings.Settings`.
        netns_fd: inherited descriptor of the host's network namespace; None where the NIC runs in it.
        seed: of everything random: EV order, first PSNs.
        ring_frames: packets that the receive ring holds; each takes the path MTU and some 400 bytes.
        shared: where it shows what it does; None: nowhere.
        timing: count the time of each stage of the loop.
    """

    host: str
    address: str
    ports: tuple[NicPort, ...]
    peers: tuple[NicPeer, ...]
    settings: Settings = field(default_factory=Settings)
    netns_fd: int | None = None
    seed: int = 0
    ring_frames: int = 4096
    shared: SharedFds | None = None
    timing: bool = False

    def __post_init__(self) -> None:
        where = f"NIC plan of {self.host}"
        if not self.ports:
            raise UsageError("a NIC needs a port", where=where, expected="one for each plane of its host")
        planes = [port.plane for port in self.ports]
        if len(set(planes)) != len(planes) or not all(0 <= plane < PLANES_MOST for plane in planes):
            expected = f"each plane once, 0 to {PLANES_MOST - 1}"
            raise UsageError("these ports cannot be", where=where, found=f"planes {planes}", expected=expected)
        for what, address in (("the NIC", self.address), *((port.name, port.address) for port in self.ports)):
            packed_address(address, f"{where}, {what}")
        for peer in self.peers:
            _check_peer(peer, planes, f"{where}, peer {peer.name}")
        twice = _repeated(packed_address(peer.address, where) for peer in self.peers)
        if twice is not None:
            found = str(ipaddress.IPv6Address(twice))
            raise UsageError("two peers have one address", where=where, found=found, expected="an address each")
        if self.settings.pmtu not in PMTUS:
            expected = f"one of {', '.join(map(str, PMTUS))}"
            raise UsageError("this is no path MTU", where=where, found=str(self.settings.pmtu), expected=expected)
        if not 64 <= self.ring_frames <= 1 << 20:
            expected = f"64 to {1 << 20}"
            raise UsageError("a ring cannot be this size", where=where, found=str(self.ring_frames), expected=expected)

    def to_json(self) -> str:
        """As one line of JSON."""
        return planjson.to_json(self)

    @classmethod
    def from_json(cls, text: str) -> NicPlan:
        """Read what :meth:`to_json` wrote. Raises UsageError that says which field is wrong."""
        return planjson.from_json(cls, text, "NIC plan")


def _check_peer(peer: NicPeer, planes: list[int], where: str) -> None:
    count = len(peer.evs)
    if not count or len(peer.planes) != count or len(peer.destinations) != 2 * ADDRESS_BYTES * count:
        raise UsageError(
            "a peer needs one plane and one destination address per EV",
            where=where,
            found=f"{count} EVs, {len(peer.planes)} planes, {len(peer.destinations)} hexadecimal digits",
            expected=f"{count} planes and {32 * count} digits, and at least one EV",
            remedy="build the three columns from the same list of paths",
        )
    packed_address(peer.address, where)
    unknown = sorted(set(peer.planes) - set(planes))
    if unknown:
        expected = f"planes {sorted(planes)}"
        raise UsageError(
            "a path leaves by a plane without a port", where=where, found=str(unknown[0]), expected=expected
        )
    if not all(0 <= ev < 1 << 32 for ev in peer.evs) or len(set(peer.evs)) != count:
        raise UsageError("EVs are distinct numbers of 32 bits", where=where, found=str(peer.evs)[:80])
    try:
        bytes.fromhex(peer.destinations)
    except ValueError as error:
        found = f"{peer.destinations[:40]}: {error}"
        raise UsageError("destinations are hexadecimal", where=where, found=found, expected="digits 0–9, a–f") from None


def packed_address(text: str, where: str) -> bytes:
    """The 16 bytes of an IPv6 address. Raises UsageError for anything else."""
    try:
        return ipaddress.IPv6Address(text).packed
    except ValueError:
        expected = "for instance fd00::1"
        raise UsageError("not an IPv6 address", where=where, found=repr(text), expected=expected) from None


def _repeated(values: Iterable[bytes]) -> bytes | None:
    seen = set[bytes]()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
