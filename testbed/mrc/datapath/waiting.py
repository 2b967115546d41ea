"""Waiting for whatever comes first: a packet, a port, room to send, a command, a time."""

from __future__ import annotations

import numpy as np

from testbed.kernel import POLLFD, POLLIN, POLLOUT, ppoll

_RING, _PORTS, _SENDER, _WAKE = range(4)


class Waiter:
    """ppoll(2) over the descriptors of a NIC, and one of its owner's."""

    def __init__(self, ring: int, ports: int, sender: int) -> None:
        self._fds = (ring, ports, sender)
        self._poll = np.zeros(4, POLLFD)
        self._poll["fd"] = (ring, ports, -1, -1)
        self._poll["events"] = (POLLIN, POLLIN, POLLOUT, POLLIN)
        self._fd, self._revents = self._poll["fd"], self._poll["revents"]
        self._timeout = np.zeros(2, np.int64)
        self._poll_at, self._timeout_at = self._poll.ctypes.data, self._timeout.ctypes.data

    def wake_on(self, fd: int) -> None:
        """End every wait when this descriptor is readable, too; -1: no more."""
        self._fd[_WAKE] = fd

    def wait(self, nanoseconds: int, *, packets: bool = True, room: bool = False) -> bool:
        """Wait for at most so long; 0 only looks.

        Args:
            nanoseconds: how long.
            packets: wait for packets, too.
            room: wait for room in the sending socket, too.

        Returns whether a port may have something to tell.
        """
        ring, _, sender = self._fds
        self._fd[_RING] = ring if packets else -1
        self._fd[_SENDER] = sender if room else -1
        self._timeout[0], self._timeout[1] = divmod(max(nanoseconds, 0), 1_000_000_000)
        return ppoll(self._poll_at, 4, self._timeout_at, None) > 0 and bool(self._revents[_PORTS])
