"""The kernel side of probing: raw sockets, packet rings, namespaces. 64-bit Linux."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from testbed.errors import InfrastructureError, UnsupportedError
from testbed.traffic.probes.plan import SIZE_MIN
from testbed.traffic.probes.wire import NEXT_HEADER_IPV6, NEXT_HEADER_UDP, STAMP_PORT

# From linux/if_packet.h, linux/if_ether.h, linux/in6.h, asm-generic/socket.h, linux/sched.h, linux/prctl.h.
SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_IGNORE_OUTGOING = 23
TPACKET_V3 = 2
ETH_P_IPV6 = 0x86DD
IPV6_RECVERR = 25
SO_ATTACH_FILTER = 26
SO_SNDBUFFORCE = 32
CLONE_NEWNET = 0x40000000
PR_SET_TIMERSLACK = 29
SEND_BUFFER_BYTES = 8 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.bind.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_libc.ppoll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p]

#: ``ppoll(2)`` on addresses of pollfd array and timespec.
ppoll = _libc.ppoll


def precise_timers() -> None:
    """Let timers of this thread fire when asked, not up to 50 microseconds later."""
    _libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


@contextmanager
def inside(netns_fd: int | None, host: str) -> Iterator[None]:
    """Run with the calling thread in a host's network namespace (setns(2)); sockets opened there stay there."""
    if netns_fd is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(netns_fd, host)
        try:
            yield
        finally:
            _setns(home, "the agent's own namespace")
    finally:
        os.close(home)


def _setns(fd: int, where: str) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise InfrastructureError(
            "a network namespace cannot be entered",
            where=where,
            found=f"setns of descriptor {fd}: {os.strerror(code)}",
            expected="an inherited descriptor of a network namespace of this user namespace",
            remedy="pass the descriptor to the agent, and start the agent inside the fabric's user namespace",
        )


def open_sender() -> socket.socket:
    """A raw socket that takes whole IPv6 packets, outer header included, and receives nothing.

    Protocol 255 rather than 41: no ICMP error is ever matched to it, so an answer of the fabric cannot make a later
    send fail, and IPV6_RECVERR can be set, without which the kernel hides the drops of its own queues (ENOBUFS).
    """
    sender = _raw(socket.IPPROTO_RAW)
    sender.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    try:
        sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
    except PermissionError:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return sender


def open_silencer() -> socket.socket:
    """A raw socket for IPv6-in-IPv6 that drops everything: while it is open the kernel sends no ICMP errors for it."""
    return _raw(NEXT_HEADER_IPV6)


def _raw(protocol: int) -> socket.socket:
    try:
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except PermissionError as error:
        raise UnsupportedError(
            "raw sockets are not allowed here",
            where="probe agent",
            found=str(error),
            expected="CAP_NET_RAW in the host's network namespace",
            remedy="start the agent inside the fabric's user namespace, or as root on a real host",
        ) from error
    attach_filter(raw, _DROP_ALL)
    return raw


# Classic BPF: (code, jump if true, jump if false, value).
_LOAD_BYTE, _LOAD_HALF, _AND, _EQUAL, _RETURN = 0x30, 0x28, 0x54, 0x15, 0x06
_DROP_ALL = ((_RETURN, 0, 0, 0),)
#: Probes, seen from the outer IPv6 header on; keeps the first 156 bytes, whatever the packet's size.
_PROBES = (
    (_LOAD_BYTE, 0, 0, 0),
    (_AND, 0, 0, 0xF0),
    (_EQUAL, 0, 10, 0x60),
    (_LOAD_BYTE, 0, 0, 6),
    (_EQUAL, 0, 8, NEXT_HEADER_IPV6),
    (_LOAD_BYTE, 0, 0, 40),
    (_AND, 0, 0, 0xF0),
    (_EQUAL, 0, 5, 0x60),
    (_LOAD_BYTE, 0, 0, 46),
    (_EQUAL, 0, 3, NEXT_HEADER_UDP),
    (_LOAD_HALF, 0, 0, 82),
    (_EQUAL, 0, 1, STAMP_PORT),
    (_RETURN, 0, 0, SIZE_MIN),
    (_RETURN, 0, 0, 0),
)


def attach_filter(sock: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    """Attach a classic BPF program to a socket."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))


class Ring:
    """A TPACKET_V3 receive ring on all interfaces of the current namespace, filtered to probes.

    The socket is of type SOCK_DGRAM, so that packets start at the network header on any kind of link. It is bound
    last: nothing arrives before ring and filter are there.

    Attributes:
        memory: ``(blocks, block_bytes)`` bytes shared with the kernel.
    """

    def __init__(self, blocks: int, block_bytes: int, retire_ms: int) -> None:
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        try:
            packet.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
            packet.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            attach_filter(packet, _PROBES)
            frame = 2048
            request = struct.pack("7I", block_bytes, blocks, frame, blocks * block_bytes // frame, retire_ms, 0, 0)
            packet.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
            shared = mmap.mmap(packet.fileno(), blocks * block_bytes)
            _bind_to_all(packet)
        except OSError:
            packet.close()
            raise
        self.socket = packet
        self.memory: npt.NDArray[np.uint8] = np.frombuffer(shared, np.uint8).reshape(blocks, block_bytes)

    def take_drops(self) -> int:
        """Packets the kernel dropped because the ring was full, since the last call."""
        statistics = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12)
        return int(struct.unpack("3I", statistics)[1])


def _bind_to_all(packet: socket.socket) -> None:
    """bind(2) to IPv6 on all interfaces, ifindex 0; Python's own bind wants the name of one."""
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(ETH_P_IPV6), 0, 0, 0, 0, b"")
    if _libc.bind(packet.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def open_ring(host: str, blocks: int, block_bytes: int, retire_ms: int) -> Ring:
    """A ring in the current namespace. Raises ``InfrastructureError`` where the kernel refuses it."""
    try:
        return Ring(blocks, block_bytes, retire_ms)
    except OSError as error:
        raise InfrastructureError(
            "a packet ring cannot be made",
            where=host,
            found=str(error),
            expected=f"{blocks} blocks of {block_bytes} bytes, CAP_NET_RAW in the host's network namespace",
            remedy="give the agent the capability, or ask for a smaller ring",
        ) from error
