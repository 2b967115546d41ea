"""Addresses of the table where the kernel can read them, at places that stay while they are in the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from testbed.voice.addresses import SOCKADDR_BYTES
from testbed.voice.relay.table import MOST_TARGETS, Table, Target

_STRIDE: Final = 32


class Targets:
    """Where inward datagrams go.

    Attributes:
        table: what is in force.
    """

    def __init__(self, table: Table) -> None:
        self._sockaddrs = np.zeros((MOST_TARGETS, _STRIDE), np.uint8)
        self._start = self._sockaddrs.ctypes.data
        self._places: dict[Target, int] = {}
        self._free: Iterator[int] = iter(range(MOST_TARGETS))
        self._freed: list[int] = []
        self.table = table
        self.replace(table)

    def replace(self, table: Table) -> list[int]:
        """Put another table in force.

        Returns the pointers of targets that are gone. They must not be used for sending from now on: they are given
        to the next new target.
        """
        addresses = table.addresses
        gone = [target for target in self._places if target not in addresses]
        places = [self._places.pop(target) for target in gone]
        # Removed first, so that there is always room.
        self._freed.extend(places)
        for target, address in addresses.items():
            place = self._places.get(target)
            if place is None:
                place = self._places[target] = self._freed.pop() if self._freed else next(self._free)
            self._sockaddrs[place, :SOCKADDR_BYTES] = np.frombuffer(address.sockaddr, np.uint8)
        self.table = table
        return [self._start + place * _STRIDE for place in places]

    def pointer(self, cluster: int, transceiver: int) -> int | None:
        """Where the ``sockaddr_in6`` for a call is in memory; None where the table has none."""
        target = self.table.target(cluster, transceiver)
        return None if target is None else self._start + self._places[target] * _STRIDE
