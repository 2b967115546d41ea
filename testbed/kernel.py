"""Linux as Python does not offer it: ppoll, socket filters, raw IPv6 sockets, namespaces. 64-bit Linux.

A leaf: the path probes and the software NIC both stand on it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from testbed.errors import InfrastructureError, UnsupportedError

# From linux/if_packet.h, linux/if_ether.h, linux/in6.h, asm-generic/socket.h, linux/sched.h, linux/prctl.h.
SOL_PACKET = 263
PACKET_RX_RING = 5
PACKET_STATISTICS = 6
PACKET_VERSION = 10
PACKET_IGNORE_OUTGOING = 23
ETH_P_IPV6 = 0x86DD
NEXT_HEADER_UDP = 17
NEXT_HEADER_IPV6 = 41
_IPV6_RECVERR = 25
_SO_ATTACH_FILTER = 26
_SO_SNDBUFFORCE = 32
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_SEND_BUFFER_BYTES = 8 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.bind.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_libc.ppoll.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p]

#: ``ppoll(2)`` on addresses of pollfd array and timespec.
ppoll = _libc.ppoll

POLLFD = np.dtype([("fd", "i4"), ("events", "i2"), ("revents", "i2")])
POLLIN, POLLOUT = 1, 4

#: A step of a classic BPF program: code, jump if true, jump if false, value.
Step = tuple[int, int, int, int]
LOAD_BYTE, LOAD_HALF, AND, EQUAL, RETURN = 0x30, 0x28, 0x54, 0x15, 0x06
_DROP_ALL: tuple[Step, ...] = ((RETURN, 0, 0, 0),)


def udp_in_ipv6_in_ipv6(port: int, keep: int) -> tuple[Step, ...]:
    """A filter for UDP to ``port`` in IPv6 in IPv6, seen from the outer header on, that keeps ``keep`` bytes."""
    return (
        (LOAD_BYTE, 0, 0, 0),
        (AND, 0, 0, 0xF0),
        (EQUAL, 0, 10, 0x60),
        (LOAD_BYTE, 0, 0, 6),
        (EQUAL, 0, 8, NEXT_HEADER_IPV6),
        (LOAD_BYTE, 0, 0, 40),
        (AND, 0, 0, 0xF0),
        (EQUAL, 0, 5, 0x60),
        (LOAD_BYTE, 0, 0, 46),
        (EQUAL, 0, 3, NEXT_HEADER_UDP),
        (LOAD_HALF, 0, 0, 82),
        (EQUAL, 0, 1, port),
        (RETURN, 0, 0, keep),
        (RETURN, 0, 0, 0),
    )


def attach_filter(sock: socket.socket, program: tuple[Step, ...]) -> None:
    """Attach a classic BPF program to a socket."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))


def bind_to_all(packet: socket.socket) -> None:
    """bind(2) a packet socket to IPv6 on all interfaces, index 0; Python's own bind wants the name of one."""
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(ETH_P_IPV6), 0, 0, 0, 0, b"")
    if _libc.bind(packet.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def precise_timers() -> None:
    """Let timers of this thread fire when asked, not up to 50 microseconds later."""
    _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def many_descriptors() -> None:
    """Let this process have as many descriptors open as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def die_with_parent(parent: int, *, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel kill this process when ``parent``, the process that made it, ends; at once if it has ended.

    ``by``: another signal, for who sees to its own end.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


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
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise InfrastructureError(
            "a network namespace cannot be entered",
            where=where,
            found=f"setns of descriptor {fd}: {os.strerror(code)}",
            expected="an inherited descriptor of a network namespace of this user namespace",
            remedy="pass the descriptor to the agent, and start the agent inside the fabric's user namespace",
        )


def open_sender(where: str) -> socket.socket:
    """A raw socket that takes whole IPv6 packets, outer header included, and receives nothing.

    Protocol 255 rather than 41: no ICMP error is ever matched to it, so an answer of the fabric cannot make a later
    send fail, and IPV6_RECVERR can be set, without which the kernel hides the drops of its own queues (ENOBUFS).

    Args:
        where: who needs it, for the error.
    """
    sender = _raw(socket.IPPROTO_RAW, where)
    sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    try:
        sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER_BYTES)
    except PermissionError:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return sender


def open_silencer(where: str) -> socket.socket:
    """A raw socket for IPv6-in-IPv6 that drops everything: while it is open the kernel sends no ICMP errors for it."""
    return _raw(NEXT_HEADER_IPV6, where)


def _raw(protocol: int, where: str) -> socket.socket:
    try:
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    except PermissionError as error:
        raise UnsupportedError(
            "raw sockets are not allowed here",
            where=where,
            found=str(error),
            expected="CAP_NET_RAW in the host's network namespace",
            remedy="start the agent inside the fabric's user namespace, or as root on a real host",
        ) from error
    attach_filter(raw, _DROP_ALL)
    return raw
