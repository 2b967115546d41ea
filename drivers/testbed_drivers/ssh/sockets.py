"""The stream beneath an SSH connection: TCP, a forwarded Unix socket, or a channel through a jump host."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

import paramiko

from testbed_drivers.ssh.errors import ConnectionLostError, UnreachableError
from testbed_drivers.ssh.limits import Limits

_UNIX: Final = "unix:"


def direct(address: str, port: int, limits: Limits) -> socket.socket:
    """A connected stream socket. Raises UnreachableError within ``limits.connect_s`` for each address of the name."""
    where = f"{address} port {port}"
    try:
        if address.startswith(_UNIX):
            return _unix(address.removeprefix(_UNIX), limits)
        made = socket.create_connection((address, port), timeout=limits.connect_s)
    except TimeoutError:
        found = f"no answer within {limits.connect_s:g} s"
        raise UnreachableError("nobody accepts a connection", where=where, found=found) from None
    except socket.gaierror as error:
        raise UnreachableError("this name is not known", where=where, found=error.strerror or str(error)) from None
    except OSError as error:
        found = error.strerror or str(error)
        raise UnreachableError("nobody accepts a connection", where=where, found=found) from None
    # A device that has lost its power acknowledges nothing: the kernel ends the connection, and with it every wait.
    with contextlib.suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.dead_s * 1000))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def through(jump: paramiko.Transport, name: str, address: str, port: int, limits: Limits) -> paramiko.Channel:
    """A channel to an address as the jump host reaches it. Raises UnreachableError, ConnectionLostError."""
    where = f"{address} port {port}, through {name}"
    try:
        return jump.open_channel("direct-tcpip", (address, port), ("::1", 0), timeout=limits.connect_s)
    except paramiko.ChannelException as error:
        raise UnreachableError("the jump host cannot reach it", where=where, found=error.text) from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        found = str(error) or type(error).__name__
        raise ConnectionLostError("the jump host opens no way to it", where=where, found=found) from None


def _unix(path: str, limits: Limits) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.settimeout(limits.connect_s)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made
