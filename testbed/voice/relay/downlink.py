"""Framed datagrams: transceivers' answers outward, and what other relays send inward. Stateless but for a cache.

A header and its source are checked once; what follows from them is kept until the header is too old, in a cache of
fixed size. Without the cache everything works the same, slower.
"""

from __future__ import annotations

from itertools import repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from testbed.voice.addresses import SOCKADDR_BYTES, Address
from testbed.voice.framing import (
    HEADER_BYTES,
    INWARD,
    VALID_S,
    Fault,
    FramingError,
    Header,
    open_inward,
    open_outward,
    seal,
)
from testbed.voice.keys import Keys
from testbed.voice.relay.batch import Batch
from testbed.voice.relay.counters import Direction, Drop, Word, WorkerCounters
from testbed.voice.relay.part import RESEAL_S
from testbed.voice.relay.targets import Targets
from testbed.voice.relay.uplink import FEW, is_client

_HEAD: Final = np.uint64(HEADER_BYTES)
_TO_CLIENT, _TO_RELAY, _TO_TARGET = 0, 1, 2
_STRIDE: Final = 32


class Downlink:
    """What is done with the datagrams of the internal socket."""

    def __init__(self, batch: Batch, targets: Targets, counters: WorkerCounters, keys: Keys, capacity: int) -> None:
        """``capacity``: headers that are known at once, at most."""
        self._batch, self._targets, self._counters, self._keys = batch, targets, counters, keys
        self._places: dict[bytes, int] = {}
        self._names: list[bytes] = [b""] * capacity
        self._next = 0
        self._action: npt.NDArray[np.uint8] = np.zeros(capacity, np.uint8)
        self._until_s: npt.NDArray[np.int64] = np.zeros(capacity, np.int64)
        self._heads: npt.NDArray[np.uint64] = np.zeros((capacity, HEADER_BYTES // 8), np.uint64)
        self._sockaddrs: npt.NDArray[np.uint8] = np.zeros((capacity, _STRIDE), np.uint8)
        start, stride = self._sockaddrs.ctypes.data, np.uint64(_STRIDE)
        self._pointers: npt.NDArray[np.uint64] = start + np.arange(capacity, dtype=np.uint64) * stride

    def forget(self, keys: Keys) -> None:
        """Check everything anew, with these keys: keys or the table have changed."""
        self._keys = keys
        self._places.clear()
        self._names = [b""] * len(self._names)

    def take(self, count: int, public_fd: int, internal_fd: int, now_ms: int, now_s: int) -> None:
        """Pass on the ``count`` datagrams of the batch."""
        if count <= FEW and self._few(count, public_fd, now_s):
            return
        batch = self._batch
        names: list[bytes] = batch.framed_names[:count].tolist()
        places = np.fromiter(map(self._places.get, names, repeat(-1)), np.int64, count)
        lengths = batch.lengths[:count]
        # Of a datagram shorter than a header and a byte these are the largest numbers there are.
        fits = lengths - np.uint32(HEADER_BYTES + 1) < batch.most - HEADER_BYTES
        good = fits & (places >= 0) & (self._until_s[places] > now_s)
        self._counters.packets[Direction.OUTWARD, 0] += np.uint64(count)
        self._counters.octets[Direction.OUTWARD, 0] += np.uint64(lengths.sum())
        if not good.all():
            self._slowly(names, places, good, fits, now_s)
        actions = self._action[places]
        for action in (_TO_CLIENT, _TO_RELAY, _TO_TARGET) if actions.any() else (_TO_CLIENT,):
            at = np.flatnonzero(good & (actions == action))
            if len(at):
                if action == _TO_TARGET:
                    self._counters.set(Word.RELAYED_MS, now_ms)
                self._send(action, at, places[at], public_fd if action == _TO_CLIENT else internal_fd)

    def _few(self, count: int, fd: int, now_s: int) -> bool:
        """The same for so few that columns do not pay; False, and nothing done, where not all go to clients."""
        batch, places, octets = self._batch, [], 0
        for at in range(count):
            place = self._places.get(batch.framed_name(at), -1)
            length = int(batch.lengths[at])
            if place < 0 or not HEADER_BYTES < length <= batch.most or self._action[place] != _TO_CLIENT:
                return False
            if self._until_s[place] <= now_s:
                return False
            places.append(place)
            octets += length
        for at, place in enumerate(places):
            batch.lay_out(at, at, HEADER_BYTES, int(batch.lengths[at]) - HEADER_BYTES, int(self._pointers[place]))
        self._counters.packets[Direction.OUTWARD, 0] += np.uint64(count)
        forwarded = octets - count * HEADER_BYTES
        self._counters.passed(Direction.OUTWARD, octets, forwarded, count, batch.send(fd, count))
        return True

    def _send(self, action: int, at: npt.NDArray[np.int64], places: npt.NDArray[np.int64], fd: int) -> None:
        batch, count = self._batch, len(at)
        base, lengths = batch.body[at], batch.lengths[at]
        if action == _TO_TARGET:
            batch.heads[at] = self._heads[places]
            base -= _HEAD
            lengths += np.uint32(HEADER_BYTES)
        else:
            base += _HEAD
            lengths -= np.uint32(HEADER_BYTES)
        batch.out_base[:count] = base
        batch.out_length[:count] = lengths
        batch.out_name[:count] = self._pointers[places]
        way = Direction.INWARD if action == _TO_TARGET else Direction.OUTWARD
        self._counters.passed(way, 0, int(lengths.sum()), count, batch.send(fd, count))

    def _slowly(
        self,
        names: list[bytes],
        places: npt.NDArray[np.int64],
        good: npt.NDArray[np.bool_],
        fits: npt.NDArray[np.bool_],
        now_s: int,
    ) -> None:
        # One header may be new in many datagrams of a batch.
        verdicts: dict[bytes, int | str] = {}
        for at in np.flatnonzero(~good).tolist():
            if not fits[at]:
                short = int(self._batch.lengths[at]) < HEADER_BYTES
                self._counters.drop(Fault.SHORT if short else Drop.EMPTY_OR_OVERSIZED)
                continue
            name = names[at]
            verdict = verdicts.get(name)
            if verdict is None:
                try:
                    verdict = verdicts[name] = self._open(name, now_s)
                except FramingError as error:
                    verdict = verdicts[name] = error.fault.value
            if isinstance(verdict, str):
                self._counters.drop(verdict)
            else:
                places[at], good[at] = verdict, True
        # What was new may have taken the place of what this very batch uses.
        for at in np.flatnonzero(good).tolist():
            if self._names[places[at]] != names[at]:
                good[at] = False
                self._counters.drop(Drop.BUSY)

    def _open(self, name: bytes, now_s: int) -> int | str:
        """A place in the cache for a header from its source, or why the relay does not act on it."""
        source, header = Address.from_sockaddr(name[:SOCKADDR_BYTES]), name[SOCKADDR_BYTES:]
        if header[0] == INWARD:
            return self._from_relay(name, source, open_inward(header, self._keys, now_s), now_s)
        read = open_outward(header, self._keys, now_s)
        if source != self._targets.table.address(read.cluster, read.transceiver):
            return Drop.STRANGER
        if read.more:
            if read.client not in self._targets.table.relays:
                return Drop.STRANGER
            action = _TO_RELAY
        else:
            if not is_client(read.client.sockaddr):
                return Drop.SOURCE
            action = _TO_CLIENT
        # Sealed by a clock that may have been set back since.
        age = (now_s - read.sealed_s + 0x8000_0000 & 0xFFFF_FFFF) - 0x8000_0000
        return self._keep(name, action, read.client.sockaddr, now_s - age + VALID_S)

    def _from_relay(self, name: bytes, source: Address, read: Header, now_s: int) -> int | str:
        if source not in self._targets.table.relays:
            return Drop.STRANGER
        if read.more:
            return Fault.DEPTH
        to = self._targets.table.address(read.cluster, read.transceiver)
        if to is None:
            return Drop.NO_ROUTE
        place = self._keep(name, _TO_TARGET, to.sockaddr, now_s + RESEAL_S)
        header = seal(source, read.cluster, read.transceiver, self._keys, now_s, more=True, steering=read.steering)
        self._heads[place] = np.frombuffer(header, np.uint64)
        return place

    def _keep(self, name: bytes, action: int, sockaddr: bytes, until_s: int) -> int:
        place = self._places.get(name)
        if place is None:
            place = self._next
            self._next = (place + 1) % len(self._names)
            self._places.pop(self._names[place], None)
            self._names[place] = name
            self._places[name] = place
        self._action[place], self._until_s[place] = action, until_s
        self._sockaddrs[place, :SOCKADDR_BYTES] = np.frombuffer(sockaddr, np.uint8)
        return place
