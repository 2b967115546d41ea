"""The NIC's ports: which interface is which plane, and whether it has a carrier, told by rtnetlink at once.

Message layouts: linux/netlink.h, linux/rtnetlink.h; flags: linux/if.h.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from testbed.errors import InfrastructureError, UsageError, nearest

_NETLINK_ROUTE, _GROUP_LINK = 0, 1
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_REQUEST_DUMP = 0x301
_SIOCGIFMTU = 0x8921
_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000
_HEADER = struct.Struct("=IHHII")
_INTERFACE = struct.Struct("=BBHiII")
_BUFFER = 1 << 16


class Port(Protocol):
    """A port as the plan has it."""

    @property
    def name(self) -> str:
        """Its interface."""
        ...

    @property
    def plane(self) -> int:
        """Its plane."""
        ...


def indices(ports: Sequence[Port], host: str) -> dict[int, int]:
    """Interface index → plane, in the current namespace. Raises InfrastructureError for a name that is not there."""
    found = {}
    for port in ports:
        try:
            found[socket.if_nametoindex(port.name)] = port.plane
        except OSError as error:
            names = [name for _, name in socket.if_nameindex()]
            raise InfrastructureError(
                "a port of the plan does not exist",
                where=host,
                found=f"interfaces {', '.join(names)}",
                expected=f"{port.name} for plane {port.plane}",
                nearest=nearest(port.name, names),
                remedy="bring the fabric up first, or correct the port's name in the plan",
            ) from error
    return found


def check_mtu(ports: Sequence[Port], need: int, host: str) -> None:
    """Raise UsageError for a port, in the current namespace, whose MTU is below ``need`` bytes."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        for port in ports:
            asked = struct.pack("16si20x", port.name.encode(), 0)
            (mtu,) = struct.unpack_from("i", fcntl.ioctl(any_socket, _SIOCGIFMTU, asked), 16)
            if mtu < need:
                raise UsageError(
                    "the path MTU does not fit a port",
                    where=f"{host}, {port.name}",
                    found=f"an MTU of {mtu} bytes",
                    expected=f"at least {need}: the payload, both IPv6 headers, and MRC's",
                    remedy="choose a smaller `pmtu`, or a larger MTU for the links",
                )


class PlaneTable:
    """From interface index to plane, for columns. ``planes``: index → plane."""

    #: Given for interfaces that are no port of the NIC.
    NONE = 0xFF

    def __init__(self, planes: dict[int, int]) -> None:
        self._indices = np.array(sorted(planes), np.int32)
        self._planes = np.array([planes[index] for index in sorted(planes)], np.uint8)

    def of(self, ifindex: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        """The plane of each interface, :attr:`NONE` where it has none."""
        at = np.searchsorted(self._indices, ifindex)
        np.minimum(at, len(self._indices) - 1, out=at)
        planes = self._planes[at]
        planes[self._indices[at] != ifindex] = self.NONE
        return planes


class PortWatch:
    """Carrier of the ports, from the moment it is made in the current namespace.

    Attributes:
        up: plane → whether its port has a carrier and is up, as last told.
    """

    def __init__(self, planes: dict[int, int]) -> None:
        """``planes``: interface index → plane. Raises OSError."""
        self._planes = planes
        self.up = dict.fromkeys(planes.values(), False)
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_ROUTE)
        self._socket.bind((0, _GROUP_LINK))
        self._ask()

    def fileno(self) -> int:
        """Readable when there may be something to tell."""
        return self._socket.fileno()

    def changes(self) -> list[tuple[int, bool]]:
        """``(plane, up)`` of every change since the last call, in order; the first call tells who is up."""
        found: list[tuple[int, bool]] = []
        while True:
            try:
                data = self._socket.recv(_BUFFER)
            except BlockingIOError:
                return found
            except OSError as error:
                # Notifications were lost: ask for all again.
                if error.errno != errno.ENOBUFS:
                    raise
                self._ask()
                continue
            for plane, up in self._told(data):
                if self.up[plane] != up:
                    self.up[plane] = up
                    found.append((plane, up))

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def _ask(self) -> None:
        size = _HEADER.size + _INTERFACE.size
        body = _INTERFACE.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0)
        self._socket.send(_HEADER.pack(size, _GETLINK, _REQUEST_DUMP, 0, 0) + body)

    def _told(self, data: bytes) -> list[tuple[int, bool]]:
        told = []
        at = 0
        while at + _HEADER.size + _INTERFACE.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            if kind in (_NEWLINK, _DELLINK):
                _, _, _, index, flags, _ = _INTERFACE.unpack_from(data, at + _HEADER.size)
                if index in self._planes:
                    up = kind == _NEWLINK and flags & _IFF_UP != 0 and flags & _IFF_LOWER_UP != 0
                    told.append((self._planes[index], up))
            if length < _HEADER.size:
                break
            at += (length + 3) & ~3
        return told
