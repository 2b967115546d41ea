"""What devices do beside ports, counters and tables (:mod:`testbed.fabric.devices`): programs, files, reboots.

Small protocols as there, each with its name among a driver's ``capabilities``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from testbed.fabric.devices import Change, Changes


class Conversation(Protocol):
    """A program on a device, talked to by its standard input and output. Safe to use from two threads, one a way."""

    def send(self, data: bytes) -> None:
        """Write to its input; returns when the transport has taken it. Raises what the transport raises."""
        ...

    def receive(self, size: int) -> bytes:
        """Wait for up to so many bytes of its output; none at its end, and after :meth:`close`."""
        ...

    def said(self) -> str:
        """What it wrote to its standard error so far, the last few KiB."""
        ...

    def close(self) -> None:
        """End its input and output."""
        ...


@runtime_checkable
class Programs(Protocol):
    """``programs``: programs that are talked to."""

    def converse(self, argv: Sequence[str], changes: Changes) -> tuple[Conversation, Change]:
        """Start a program as root that ends when its input does; nothing of it is to be undone."""
        ...


@runtime_checkable
class Folders(Protocol):
    """``files``: a folder of files of ours, for as long as a lease lasts."""

    def unpack(self, name: str, archive: bytes, changes: Changes) -> str:
        """Unpack a tar archive (gzip) into a new folder; returns its path there. Undoing it removes the folder.

        Args:
            name: letters, digits, ``.``, ``_`` and ``-``.
            archive: what.
            changes: the journal.

        Raises InfrastructureError where it does not fit, or is there already.
        """
        ...


@dataclass(frozen=True, order=True)
class HostAddress:
    """An IPv6 address of a host: ``port`` is the fabric's name of the port, empty for the NIC as a whole."""

    address: str
    port: str = ""


@dataclass(frozen=True, order=True)
class HostRoute:
    """Packets to ``prefix`` leave by ``port`` (the fabric's name), from ``source`` where they have no other."""

    prefix: str
    port: str
    source: str


@dataclass(frozen=True)
class HostTable:
    """What a host needs to send and receive on all planes; both sorted."""

    addresses: tuple[HostAddress, ...]
    routes: tuple[HostRoute, ...]


@runtime_checkable
class NicTables(Protocol):
    """``nic``: addresses and routes of a NIC with a port on each plane."""

    def nic_table(self, block: str, wanted: HostTable) -> HostTable:
        """What of the wanted addresses, and what of the block's routes, the device has."""
        ...

    def install_nic(self, block: str, wanted: HostTable, peers: Mapping[str, str], changes: Changes) -> Change | None:
        """Have the NIC be as wanted, and read it back; the change to undo, or None where it was so already.

        Args:
            block: the /32 of all uSIDs; other routes are not touched, and no address is removed.
            wanted: what.
            peers: the fabric's port → MAC address of the port at the other end.
            changes: the journal.

        Raises InfrastructureError where the device, read back, has something else.
        """
        ...


@runtime_checkable
class Reboots(Protocol):
    """``reboot``: a real one."""

    def reboot(self, changes: Changes) -> Change:
        """Have it reboot, and return when it has gone down: it answers no more.

        What of the fabric it held unsaved is lost by that, and put back by undoing this. Raises InfrastructureError
        where it refuses, or stays up.
        """
        ...

    def wait_back(self, timeout_s: float) -> None:
        """Wait until it takes commands again. Raises InfrastructureError on the deadline."""
        ...
