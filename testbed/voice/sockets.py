"""Sockets of a server: bound to an address of IPv6, or of IPv4 in its mapped form, or the error that says why not."""

from __future__ import annotations

import socket

from testbed.errors import UsageError
from testbed.voice.addresses import Address


def bound(address: Address, kind: socket.SocketKind, option: str) -> socket.socket:
    """A socket at an address.

    Args:
        address: where.
        kind: SOCK_DGRAM or SOCK_STREAM.
        option: by which the user gave it, for the error.

    Raises UsageError.
    """
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address.pair)
    except OSError as error:
        sock.close()
        where, found = f"{option} {address}", error.strerror or ""
        raise UsageError("the address cannot be bound", where=where, found=found) from None
    return sock


def address_of(sock: socket.socket) -> Address:
    """Where a socket of :func:`bound` is."""
    return Address.of(*sock.getsockname()[:2])
