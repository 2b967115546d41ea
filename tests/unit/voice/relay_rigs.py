"""A relay's worker without a kernel: batches filled by hand, and datagrams read where they lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from testbed.voice.addresses import Address
from testbed.voice.framing import HEADER_BYTES, MOST_HEADERS, open_inward
from testbed.voice.keys import Keys
from testbed.voice.relay import uplink
from testbed.voice.relay.batch import BODY_AT, MOST_PAYLOAD, NAME_AT, SLOT, Batch
from testbed.voice.relay.counters import Counters, WorkerCounters
from testbed.voice.relay.downlink import Downlink
from testbed.voice.relay.held import Held
from testbed.voice.relay.part import Part
from testbed.voice.relay.sessions import SessionMap, new_secret
from testbed.voice.relay.settings import Settings
from testbed.voice.relay.table import Table
from testbed.voice.relay.targets import Targets

KEYS = Keys.make()
SEVEN, OTHER = Address.of("192.0.2.7", 5000), Address.of("192.0.2.8", 5000)
NOW_S, NOW_MS = 1_800_000_000, 50_000


T = TypeVar("T")


def _mapped(fd: int, made: Callable[[int], T]) -> T:
    """What maps a descriptor's memory, and needs it no longer then."""
    try:
        return made(fd)
    finally:
        os.close(fd)


class UplinkRig:
    """An uplink whose batch is filled by hand, and whose datagrams are read where they lie."""

    def __init__(self, **settings: int) -> None:
        chosen = Settings(sessions=64, **settings)
        counters = _mapped(Counters.make(1), lambda fd: Counters(fd, 1))
        self.counters: WorkerCounters = counters.workers[0]
        targets = Targets(Table(1, {7: SEVEN}))
        sessions = _mapped(SessionMap.make(1, 64), lambda fd: SessionMap(fd, 1, new_secret()))
        self.part = Part(sessions, 0, chosen, KEYS, targets, self.counters)
        self.batch = Batch(MOST_PAYLOAD)
        held = Held(None, counters.store, chosen, self.counters)
        self.uplink = uplink.Uplink(self.batch, self.part, held, self.counters, KEYS)
        self.sent: list[bytes] = []
        self.batch.send = self._send  # type: ignore[method-assign]

    def _send(self, fd: int, count: int) -> int:
        start = int(self.batch.body[0]) - BODY_AT
        for base, length in zip(
            self.batch.out_base[:count].tolist(), self.batch.out_length[:count].tolist(), strict=True
        ):
            at = base - start
            self.sent.append(bytes(self.batch._bytes[at : at + length]))
        return count

    def take(
        self, *datagrams: tuple[Address, bytes], now_s: int = NOW_S, now_ms: int = NOW_MS
    ) -> list[tuple[Address, bytes]]:
        """Clients and payloads of what goes inward."""
        self.sent.clear()
        for at, (source, payload) in enumerate(datagrams):
            slot = at * SLOT
            kept = payload[: MOST_PAYLOAD + 1]
            self.batch._slots[slot + NAME_AT : slot + BODY_AT] = np.frombuffer(source.sockaddr, np.uint8)
            self.batch._slots[slot + BODY_AT : slot + BODY_AT + len(kept)] = np.frombuffer(kept, np.uint8)
            self.batch.lengths[at] = len(kept)
        self.uplink.take(len(datagrams), 0, now_ms, now_s)
        return [(open_inward(each[:HEADER_BYTES], KEYS, now_s).client, each[HEADER_BYTES:]) for each in self.sent]


class DownlinkRig:
    """A downlink whose batch is filled by hand."""

    def __init__(self, capacity: int = 512) -> None:
        counters = _mapped(Counters.make(1), lambda fd: Counters(fd, 1))
        self.counters = counters.workers[0]
        self.targets = Targets(Table(1, {7: SEVEN}))
        self.batch = Batch(MOST_PAYLOAD + MOST_HEADERS * HEADER_BYTES)
        self.downlink = Downlink(self.batch, self.targets, self.counters, KEYS, capacity)
        self.sent: list[tuple[Address, bytes]] = []
        self.batch.send = self._send  # type: ignore[method-assign]

    def _send(self, fd: int, count: int) -> int:
        slots, names = int(self.batch.body[0]) - BODY_AT, self.downlink._sockaddrs
        for row in range(count):
            at, length = int(self.batch.out_base[row]) - slots, int(self.batch.out_length[row])
            name = names[(int(self.batch.out_name[row]) - names.ctypes.data) // 32].tobytes()
            self.sent.append((Address.from_sockaddr(name), bytes(self.batch._bytes[at : at + length])))
        return count

    def take(self, *datagrams: tuple[Address, bytes], now_s: int = NOW_S) -> list[tuple[Address, bytes]]:
        """To whom what goes."""
        self.sent.clear()
        for at, (source, data) in enumerate(datagrams):
            slot = at * SLOT
            self.batch._slots[slot + NAME_AT : slot + BODY_AT] = np.frombuffer(source.sockaddr, np.uint8)
            self.batch._slots[slot + BODY_AT : slot + BODY_AT + len(data)] = np.frombuffer(data, np.uint8)
            self.batch.lengths[at] = len(data)
        self.downlink.take(len(datagrams), 0, 0, NOW_MS, now_s)
        return list(self.sent)
