"""A relay's sockets: for each worker one on the public port and one on the internal port, all made at once.

Who else closes one of a group of SO_REUSEPORT moves the others' flows. So the supervisor keeps them all until it ends.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from dataclasses import dataclass
from typing import Final, Self

from testbed.errors import InfrastructureError, UsageError
from testbed.voice.addresses import Address
from testbed.voice.framing import STEERING_AT

_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_RCVBUFFORCE: Final = 33
_SO_SNDBUFFORCE: Final = 32
_SO_MEMINFO: Final = 55
_DROPS: Final = 8
_BUFFER_BYTES: Final = 8 << 20
# Classic BPF: A = half-word at k; A = A mod k; return A.
_LOAD_HALF, _MOD, _RETURN_A = 0x28, 0x94, 0x16


@dataclass(frozen=True)
class Sockets:
    """All sockets of a relay, by worker."""

    public: tuple[socket.socket, ...]
    internal: tuple[socket.socket, ...]

    @classmethod
    def open(cls, public: Address, internal: Address, workers: int) -> Self:
        """Bind them. Raises UsageError and InfrastructureError."""
        made = cls(_group(public, workers, "--listen"), _group(internal, workers, "--internal"))
        _steer(made.internal)
        return made

    @property
    def addresses(self) -> tuple[Address, Address]:
        """Where they are bound, public and internal."""
        public, internal = (Address.of(*group[0].getsockname()[:2]) for group in (self.public, self.internal))
        return public, internal

    def drops(self) -> list[tuple[int, int]]:
        """Datagrams that the kernel dropped for want of room, at each worker's public and internal socket."""
        return [(_drops(public), _drops(internal)) for public, internal in zip(self.public, self.internal, strict=True)]

    def buffers(self) -> int:
        """Bytes of the receive buffer that the kernel gave."""
        return self.public[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def close(self) -> None:
        """Close all."""
        for each in (*self.public, *self.internal):
            each.close()


def _group(address: Address, workers: int, option: str) -> tuple[socket.socket, ...]:
    # Alone first: a group lets in whoever of the same user asks, another relay too.
    alone = _bound(address, option, shared=False)
    address = Address(address.ip, alone.getsockname()[1])
    if workers == 1:
        return (alone,)
    alone.close()
    return tuple(_bound(address, option, shared=True) for _ in range(workers))


def _bound(address: Address, option: str, *, shared: bool) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise InfrastructureError(
            "no socket can be opened", found=error.strerror or "", expected="IPv6 in the kernel, which carries IPv4 too"
        ) from None
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER_BYTES)
    try:
        sock.bind(address.pair)
    except OSError as error:
        sock.close()
        taken = error.errno == errno.EADDRINUSE
        raise UsageError(
            "the address cannot be bound",
            where=f"{option} {address}",
            found=error.strerror or "",
            remedy="`testbed relay status` lists the relays of this machine" if taken else "",
        ) from None
    return sock


def _steer(group: tuple[socket.socket, ...]) -> None:
    """Have the kernel choose by what the headers say: a transceiver's datagrams come all from one address."""
    if len(group) == 1:
        return
    steps = ((_LOAD_HALF, 0, 0, STEERING_AT), (_MOD, 0, 0, len(group)), (_RETURN_A, 0, 0, 0))
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    held = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(held))
    group[0].setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def _drops(sock: socket.socket) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
    return int(struct.unpack("=9I", raw)[_DROPS])
