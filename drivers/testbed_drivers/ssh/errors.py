"""What can go wrong between here and a device, one class each, so that callers can tell them apart."""

from __future__ import annotations

from testbed.errors import InfrastructureError, UsageError


class SshError(InfrastructureError):
    """A device could not be reached or asked."""


class UnreachableError(SshError):
    """Nothing accepts a connection at its address."""


class HostKeyError(SshError):
    """Its host key is not known, is another than the known one, or was revoked. Never accepted."""


class LoginRefusedError(SshError):
    """It does not let this credential in."""


class DeviceSilentError(SshError):
    """It did not answer in time. What it was asked last may have been carried out."""


class ConnectionLostError(SshError):
    """The connection ended. What it was asked last may have been carried out."""


class OutputTooLongError(SshError):
    """A command printed more than is taken from it."""


class CommandFailedError(SshError):
    """A command ended with another exit code than 0; ``returncode`` is that code, ``output`` what it said."""

    returncode: int = -1
    output: str = ""


class SudoRefusedError(SshError):
    """Sudo does not let the credential's user run the command."""


class ReadOnlyError(UsageError):
    """A command that changes the device was asked for, and devices are only to be read."""
