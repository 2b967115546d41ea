"""Devices over SSH: host keys verified, one connection a device, everything bounded, nothing written unasked."""

from testbed_drivers.ssh.command import Result, quoted
from testbed_drivers.ssh.connection import Connection
from testbed_drivers.ssh.connections import Connections
from testbed_drivers.ssh.errors import (
    CommandFailedError,
    ConnectionLostError,
    DeviceSilentError,
    HostKeyError,
    LoginRefusedError,
    OutputTooLongError,
    ReadOnlyError,
    SshError,
    SudoRefusedError,
    UnreachableError,
)
from testbed_drivers.ssh.limits import Limits

__all__ = [
    "CommandFailedError",
    "Connection",
    "ConnectionLostError",
    "Connections",
    "DeviceSilentError",
    "HostKeyError",
    "Limits",
    "LoginRefusedError",
    "OutputTooLongError",
    "ReadOnlyError",
    "Result",
    "SshError",
    "SudoRefusedError",
    "UnreachableError",
    "quoted",
]
