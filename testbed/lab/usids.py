"""The 16-bit uSIDs of a fabric (RFC 9800, F3216) and the adoption of those a fabric already has.

A generated uSID is kind (4 bits), plane (3 bits), index (9 bits); the plane bits stand at the same place in all of
them. RFC 9800 splits 16-bit uSIDs into a global block, which holds the uNs, and a local one, here from 0xE000, which
holds host ports: those mean something only to their T0, so every T0 numbers its downlinks from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from testbed.errors import LabError
from testbed.lab.problems import SHOWN
from testbed.lab.shape import Shape, Tier, t0_name, t1_name

KIND_T0: Final = 0x1
KIND_T1: Final = 0x2
KIND_PORT: Final = 0xE
PLANE_SHIFT: Final = 9
INDEX_MASK: Final = 0x1FF
#: First uSID of the local block; uNs stay below it.
LOCAL_BLOCK: Final = 0xE000
#: Stands after the host port's uSID where a host is to decapsulate ordinary IPv6 instead of MRC.
ORDINARY: Final = 0xD006


def pack(kind: int, plane: int, index: int) -> int:
    """The uSID of these three fields."""
    return kind << 12 | plane << PLANE_SHIFT | index


def unpack(usid: int) -> tuple[int, int, int]:
    """``(kind, plane, index)`` of a generated uSID."""
    return usid >> 12, usid >> PLANE_SHIFT & 0x7, usid & INDEX_MASK


class UsidTable:
    """uSID of each switch and host port, and back. Generated unless adopted; nothing is enumerated."""

    def __init__(self, shape: Shape, adopted: Mapping[str, int]) -> None:
        self.shape = shape
        self._uns: dict[tuple[int, int, int], int] = {}
        self._ports: dict[tuple[int, int], int] = {}
        for name, usid in adopted.items():
            node, port = shape.parse_node(name), shape.parse_host_port(name)
            if node is not None and node.plane is not None:
                self._uns[KIND_T0 if node.tier is Tier.T0 else KIND_T1, node.plane, node.number] = usid
            elif port is not None:
                self._ports[port] = usid
        self._un_owner = {(kind, plane, usid): index for (kind, plane, index), usid in self._uns.items()}
        self._port_owner = {(plane, self._t0(host), usid): host for (plane, host), usid in self._ports.items()}

    def _t0(self, host: int) -> int:
        return host // self.shape.hosts_per_t0

    def t0(self, plane: int, index: int) -> int:
        """The uN of a T0."""
        return self._uns.get((KIND_T0, plane, index)) or pack(KIND_T0, plane, index)

    def t1(self, plane: int, index: int) -> int:
        """The uN of a T1."""
        return self._uns.get((KIND_T1, plane, index)) or pack(KIND_T1, plane, index)

    def port(self, plane: int, host: int) -> int:
        """The uSID of a host's port on a plane, local to the host's T0."""
        return self._ports.get((plane, host)) or pack(KIND_PORT, plane, host % self.shape.hosts_per_t0)

    def find_t0(self, plane: int, usid: int) -> int | None:
        """The T0 of this plane that has this uN, or None."""
        return self._find(KIND_T0, plane, usid, self.shape.t0_per_plane)

    def find_t1(self, plane: int, usid: int) -> int | None:
        """The T1 of this plane that has this uN, or None."""
        return self._find(KIND_T1, plane, usid, self.shape.t1_per_plane)

    def _find(self, kind: int, plane: int, usid: int, count: int) -> int | None:
        adopted = self._un_owner.get((kind, plane, usid))
        if adopted is not None:
            return adopted
        index = usid & INDEX_MASK
        generated = usid == pack(kind, plane, index) and index < count and (kind, plane, index) not in self._uns
        return index if generated else None

    def find_port(self, plane: int, t0: int, usid: int) -> int | None:
        """The host on this T0 whose port has this uSID, or None."""
        adopted = self._port_owner.get((plane, t0, usid))
        if adopted is not None:
            return adopted
        downlink = usid & INDEX_MASK
        host = t0 * self.shape.hosts_per_t0 + downlink
        fits = usid == pack(KIND_PORT, plane, downlink) and downlink < self.shape.hosts_per_t0
        return host if fits and (plane, host) not in self._ports else None


def adoption_errors(shape: Shape, adopted: Mapping[str, int]) -> Iterator[tuple[str, bool, LabError]]:
    """What is wrong with the uSIDs a lab adopts: the name, whether it is itself wrong or its uSID, and the error."""
    table = UsidTable(shape, adopted)
    switches: dict[int, list[str]] = {}
    ports: dict[tuple[int, int, int], list[str]] = {}
    for name, usid in adopted.items():
        if (port := shape.parse_host_port(name)) is not None:
            ports.setdefault((port[0], port[1] // shape.hosts_per_t0, usid), []).append(name)
        elif shape.parse_node(name) is not None:
            switches.setdefault(usid, []).append(name)
    unknown = 0
    for name, usid in adopted.items():
        port, node = shape.parse_host_port(name), shape.parse_node(name)
        if port is None and (node is None or node.plane is None):
            error = shape.unknown(name, "switch or host port", near=unknown < SHOWN)
            unknown += 1
            error.expected = "switches and host ports, such as p0-t0-0 and h0:p0"
            close = name if node is not None else error.nearest
            if ":" not in name and close.startswith("h"):
                error.nearest = f"{close}:p0"
            yield name, True, error
        elif (error_of_value := _value_error(name, usid)) is not None:
            yield name, False, error_of_value
        elif port is None:
            twins = [other for other in switches[usid] if other != name][:1] or _generated_un(shape, adopted, usid)
            yield from ((name, False, error) for error in _un_errors(name, usid, twins))
        else:
            plane, t0 = port[0], port[1] // shape.hosts_per_t0
            twins = [other for other in ports[plane, t0, usid] if other != name][:1]
            twins = twins or _generated_port(shape, adopted, plane, t0, usid)
            yield from ((name, False, error) for error in _port_errors(table, name, plane, t0, usid, twins))


def _value_error(name: str, usid: int) -> LabError | None:
    if not 0 < usid <= 0xFFFF:
        limits = "0x0001…0xffff; 0x0000 ends a list of uSIDs"
        return LabError("a uSID has 16 bits and is not zero", found=f"{name}: {usid:#x}", expected=limits)
    if usid == ORDINARY:
        what = f"{ORDINARY:#06x} is reserved: after a host port's uSID it asks for ordinary IPv6"
        return LabError(what, found=f"{name}: {usid:#06x}", expected="another uSID")
    return None


def _generated_un(shape: Shape, adopted: Mapping[str, int], usid: int) -> list[str]:
    """The switch that keeps its generated uN and has this one, if any."""
    kind, plane, index = unpack(usid)
    has = {KIND_T0: shape.has_t0, KIND_T1: shape.has_t1}.get(kind)
    if has is None or not has(plane, index):
        return []
    owner = (t0_name if kind == KIND_T0 else t1_name)(plane, index)
    return [] if owner in adopted else [owner]


def _generated_port(shape: Shape, adopted: Mapping[str, int], plane: int, t0: int, usid: int) -> list[str]:
    """The host port on this T0 that keeps its generated uSID and has this one, if any."""
    kind, generated_plane, downlink = unpack(usid)
    if kind != KIND_PORT or generated_plane != plane or downlink >= shape.hosts_per_t0:
        return []
    host = t0 * shape.hosts_per_t0 + downlink
    owner = f"h{host}:p{plane}"
    return [] if owner in adopted or not shape.has_access(plane, host) else [owner]


def _un_errors(name: str, usid: int, twins: list[str]) -> Iterator[LabError]:
    found = f"{name}: {usid:#06x}"
    if usid >= LOCAL_BLOCK:
        yield LabError(
            "a switch's uSID is in the local block",
            found=found,
            expected=f"a uN from the global block, 0x0001…{LOCAL_BLOCK - 1:#06x} (RFC 9800)",
            remedy="number the switches below it",
        )
    elif twins:
        yield LabError(
            f"{name} and {twins[0]} have the same uSID",
            found=found,
            expected="one uN for each switch of the fabric",
            remedy=f"give {twins[0]} the uSID it really has in `usids`, or correct {name}",
        )


def _port_errors(table: UsidTable, name: str, plane: int, t0: int, usid: int, twins: list[str]) -> Iterator[LabError]:
    found, own = f"{name}: {usid:#06x}", t0_name(plane, t0)
    if twins:
        yield LabError(
            f"{name} and {twins[0]} have the same uSID on {own}",
            found=found,
            expected="one uSID for each host port of a T0",
            remedy=f"give {twins[0]} the uSID it really has in `usids`, or correct {name}",
        )
    t1 = table.find_t1(plane, usid)
    if t1 is not None and not table.shape.has_t1(plane, t1):
        t1 = None
    routed = own if usid == table.t0(plane, t0) else t1_name(plane, t1) if t1 is not None else ""
    if routed:
        yield LabError(
            f"{name} has the uSID of {routed}, which {own} routes too",
            found=found,
            expected=f"a host port's uSID from {LOCAL_BLOCK:#06x} up, or one that {own} routes nowhere else",
            remedy=f"correct {name}, or give {routed} the uSID it really has in `usids`",
        )
