"""UDP addresses of IPv6, or of IPv4 in their mapped form: as text, as the kernel's ``sockaddr_in6``, as 18 bytes."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from dataclasses import dataclass
from typing import Final, Self

from testbed.errors import UsageError

#: ``sockaddr_in6`` of linux/in6.h.
SOCKADDR_BYTES: Final = 28
#: Port and address in network order.
PACKED_BYTES: Final = 18
_MAPPED: Final = bytes(10) + b"\xff\xff"
_TEXT: Final = re.compile(r"(?:\[(?P<bracketed>[^\]]*)\]|(?P<bare>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """An address and a port.

    Attributes:
        ip: 16 bytes in network order; IPv4 as ``::ffff:a.b.c.d`` (RFC 4291 section 2.5.5.2).
        port: 0 to 65,535.
    """

    ip: bytes
    port: int

    @classmethod
    def parse(cls, text: str, *, where: str = "", wildcard: bool = False) -> Self:
        """Read ``192.0.2.1:3478`` or ``[2001:db8::1]:3478``.

        Args:
            text: what to read.
            where: file and key or option, for the error.
            wildcard: the address may be left out, which means every one, and the port may be 0, which means any.

        Raises UsageError.
        """
        match = _TEXT.fullmatch(text.strip())
        host = "" if match is None else match["bracketed"] or match["bare"] or ""
        port = -1 if match is None else int(match["port"])
        try:
            if not 0 <= port < 1 << 16 or (port == 0 and not wildcard):
                raise ValueError
            ip = ipaddress.ip_address(host) if host else ipaddress.IPv6Address(0)
            made = cls.of(str(ip), port)
            if not wildcard and (ip.is_unspecified or ip.is_multicast):
                raise ValueError
        except ValueError:
            shape = "192.0.2.1:3478 or [2001:db8::1]:3478" + (", or :3478 for every address" if wildcard else "")
            raise UsageError(
                "this is no UDP address", where=where, found=repr(text[:60]), expected=f"such as {shape}"
            ) from None
        return made

    @classmethod
    def of(cls, ip: str, port: int) -> Self:
        """From the text of an address without a zone. Raises ValueError."""
        parsed = ipaddress.ip_address(ip)
        packed = _MAPPED + parsed.packed if isinstance(parsed, ipaddress.IPv4Address) else parsed.packed
        return cls(packed, port)

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """From port and address, :data:`PACKED_BYTES` bytes."""
        return cls(packed[2:PACKED_BYTES], int.from_bytes(packed[:2], "big"))

    @classmethod
    def from_sockaddr(cls, sockaddr: bytes) -> Self:
        """From the kernel's form."""
        return cls(sockaddr[8:24], int.from_bytes(sockaddr[2:4], "big"))

    @property
    def packed(self) -> bytes:
        """Port and address, :data:`PACKED_BYTES` bytes."""
        return self.port.to_bytes(2, "big") + self.ip

    @property
    def sockaddr(self) -> bytes:
        """``sockaddr_in6``, :data:`SOCKADDR_BYTES` bytes, no flow label and no scope."""
        return struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(self.port), 0, self.ip, 0)

    @property
    def source(self) -> bytes:
        """What counts as one source: an IPv4 address, or the /64 of an IPv6 address, which one machine has whole."""
        return self.ip if self.ip.startswith(_MAPPED) else self.ip[:8]

    @property
    def pair(self) -> tuple[str, int]:
        """As Python's sockets of AF_INET6 take it."""
        return socket.inet_ntop(socket.AF_INET6, self.ip), self.port

    def __str__(self) -> str:
        if self.ip.startswith(_MAPPED):
            return f"{socket.inet_ntop(socket.AF_INET, self.ip[12:])}:{self.port}"
        return f"[{socket.inet_ntop(socket.AF_INET6, self.ip)}]:{self.port}"
