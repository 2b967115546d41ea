"""Clients' datagrams, inward: a batch at a time where the client is known, one by one where it is not."""

from __future__ import annotations

import ipaddress
import socket
from itertools import repeat
from typing import Final

import numpy as np

from testbed.voice import stun
from testbed.voice.addresses import Address
from testbed.voice.framing import HEADER_BYTES
from testbed.voice.keys import Keys
from testbed.voice.relay.batch import BODY_AT, Batch
from testbed.voice.relay.counters import Direction, Drop, Word, WorkerCounters
from testbed.voice.relay.held import Held
from testbed.voice.relay.part import Part
from testbed.voice.relay.sessions import route_of
from testbed.voice.stun import Kind
from testbed.voice.ufrag import Ufrag, UfragError, decode

_KINDS: Final = np.frombuffer(stun.KINDS, np.uint8)
#: Of a known client these need no reading.
_PLAIN: Final = np.isin(_KINDS, (Kind.DTLS, Kind.RTP))
#: Datagrams that are read one by one, for each batch: a flood of them must not hold up the others for long.
_SLOW_AT_ONCE: Final = 128
#: Up to so many datagrams are cheaper one by one.
FEW: Final = 8
_ONE: Final = np.uint64(1)
_MOST_UFRAGS: Final = 4096
_ROOM_IN_FRONT: Final = np.uint64(HEADER_BYTES)
assert BODY_AT == HEADER_BYTES


class Uplink:
    """What is done with the datagrams of the public socket."""

    def __init__(self, batch: Batch, part: Part, held: Held, counters: WorkerCounters, keys: Keys) -> None:
        self._batch, self._part, self._held, self._counters = batch, part, held, counters
        self._ufrags: dict[bytes, Ufrag] = {}
        self._keys = keys
        self.draining = False

    def rekey(self, keys: Keys) -> None:
        """Take ufrags that these keys made from now on."""
        self._keys = keys
        self._ufrags.clear()

    def release(self, sock: socket.socket, now_s: int) -> None:
        """Send what was held for clients that are known now."""
        for client, payloads in self._held.released():
            place = self._part.places.get(Address.unpack(client).sockaddr)
            if place is None:
                self._counters.drop(Drop.UNKNOWN_CLIENT, len(payloads))
                continue
            self._part.freshen(np.array([place]), now_s)
            found = self._part.at(place)
            to = self._part.target(found.route)
            for payload in payloads:
                try:
                    sock.sendto(self._part.heads[place].tobytes() + payload, to.pair)
                except OSError:
                    self._counters.drop(Drop.SEND)
                    continue
                self._counters.sent[Direction.INWARD] += np.uint64(1)
                self._counters.octets[Direction.INWARD, 1] += np.uint64(len(payload))

    def adopt(self, client: bytes, route: int, call: int, now_ms: int, now_s: int) -> None:
        """Make the session that the store knows of, unless it has come about meanwhile."""
        if Address.unpack(client).sockaddr in self._part.places:
            return
        if self._part.room_for(client) and self._part.add(client, route, call, now_ms, now_s) is not None:
            self._counters.add(Word.SESSIONS_ADOPTED)

    def take(self, count: int, fd: int, now_ms: int, now_s: int) -> None:
        """Pass on the ``count`` datagrams of the batch to their transceivers by the socket ``fd``."""
        if count <= FEW and self._few(count, fd, now_ms, now_s):
            return
        batch, part = self._batch, self._part
        names: list[bytes] = batch.names[:count].tolist()
        places = np.fromiter(map(part.places.get, names, repeat(-1)), np.int64, count)
        lengths, first = batch.lengths[:count], batch.first[:count]
        # Of an empty datagram this is the largest number there is.
        fits = lengths - np.uint32(1) < batch.most
        good = _PLAIN[first] & (places >= 0) & fits
        self._counters.packets[Direction.INWARD] += np.bincount(_KINDS[first], minlength=len(Kind)).astype(np.uint64)
        self._counters.octets[Direction.INWARD, 0] += np.uint64(lengths.sum())
        if good.all():
            chosen, base = places, batch.body[:count]
        else:
            self._slowly(names, places, good, fits, now_ms, now_s)
            at = np.flatnonzero(good)
            chosen, lengths, base = places[at], lengths[at], batch.body[at]
            count = len(at)
            if not count:
                return
        part.freshen(chosen, now_s)
        part.seen_ms[chosen] = now_ms
        if count == len(good):
            batch.heads[:count] = part.heads[chosen]
        else:
            batch.heads[at] = part.heads[chosen]
        batch.out_base[:count] = base - _ROOM_IN_FRONT
        batch.out_length[:count] = lengths
        batch.out_length[:count] += _ROOM_IN_FRONT
        batch.out_name[:count] = part.pointers[chosen]
        self._counters.passed(Direction.INWARD, 0, int(lengths.sum()), count, batch.send(fd, count))

    def _few(self, count: int, fd: int, now_ms: int, now_s: int) -> bool:
        """The same for so few that columns do not pay; False, and nothing done, where any needs reading."""
        batch, part = self._batch, self._part
        places, octets = [], 0
        for at in range(count):
            place = part.places.get(batch.name(at))
            length = int(batch.lengths[at])
            if place is None or not 0 < length <= batch.most or not _PLAIN[batch.first[at]] or part.old(place, now_s):
                return False
            places.append(place)
            octets += length
        for at, place in enumerate(places):
            self._counters.packets[Direction.INWARD, _KINDS[batch.first[at]]] += _ONE
            batch.heads[at] = part.heads[place]
            part.seen_ms[place] = now_ms
            batch.lay_out(at, at, -HEADER_BYTES, int(batch.lengths[at]) + HEADER_BYTES, int(part.pointers[place]))
        self._counters.passed(Direction.INWARD, octets, octets, count, batch.send(fd, count))
        return True

    def _slowly(
        self,
        names: list[bytes],
        places: np.ndarray[tuple[int], np.dtype[np.int64]],
        good: np.ndarray[tuple[int], np.dtype[np.bool_]],
        fits: np.ndarray[tuple[int], np.dtype[np.bool_]],
        now_ms: int,
        now_s: int,
    ) -> None:
        """Find places for what is not good yet; what cannot have one is counted."""
        left = np.flatnonzero(~good).tolist()
        oversized = len(names) - int(fits.sum())
        if oversized:
            self._counters.drop(Drop.EMPTY_OR_OVERSIZED, oversized)
            left = [at for at in left if fits[at]]
        if len(left) > _SLOW_AT_ONCE:
            self._counters.drop(Drop.BUSY, len(left) - _SLOW_AT_ONCE)
        # Known clients first, so that a flood of others does not cost them their checks.
        left.sort(key=lambda at: places[at] < 0)
        before = self._part.changes
        for at in left[:_SLOW_AT_ONCE]:
            name = names[at]
            # Not as it was when the batch began: its check may have come just before.
            place = self._place(at, name, self._part.places.get(name, -1), now_ms, now_s)
            if place >= 0:
                places[at], good[at] = place, True
        if self._part.changes == before:
            return
        # A session made or moved in this batch may have taken another's place, or the place of a client that sent
        # before it in the batch.
        for at in np.flatnonzero(good).tolist():
            place = self._part.places.get(names[at], -1)
            places[at], good[at] = place, place >= 0
            if place < 0:
                self._counters.drop(Drop.UNKNOWN_CLIENT)

    def _place(self, at: int, name: bytes, place: int, now_ms: int, now_s: int) -> int:
        kind = int(_KINDS[self._batch.first[at]])
        if kind not in (Kind.STUN, Kind.DTLS, Kind.RTP):
            return self._drop(Drop.KIND)
        if kind == Kind.STUN:
            try:
                ufrag = stun.server_ufrag(self._batch.payload(at))
            except stun.StunError:
                return self._drop(Drop.STUN)
            if ufrag is not None:
                return self._by_ufrag(name, ufrag, place, now_ms, now_s)
        if place >= 0:
            return place
        # The worker that made the session may have been another.
        client = Address.from_sockaddr(name).packed
        found = self._part.find(client, now_ms)
        if found is not None:
            if not self._part.room_for(client):
                return self._drop(Drop.SOURCE_LIMIT)
            added = self._part.add(client, found.route, found.call, now_ms, now_s)
            if added is not None:
                self._counters.add(Word.SESSIONS_ADOPTED)
                return added
        if self.draining:
            return self._drop(Drop.DRAINING)
        if not is_client(name):
            return self._drop(Drop.SOURCE)
        reason = self._held.hold(client, self._batch.payload(at), now_ms)
        return -1 if reason is None else self._drop(reason)

    def _by_ufrag(self, name: bytes, text: bytes, place: int, now_ms: int, now_s: int) -> int:
        ufrag = self._ufrags.get(text)
        if ufrag is None:
            try:
                ufrag = decode(text, self._keys.ufrag.keys)
            except UfragError as error:
                return self._drop(error.refusal)
            if len(self._ufrags) >= _MOST_UFRAGS:
                self._ufrags.clear()
            self._ufrags[text] = ufrag
        route, call = route_of(ufrag.cluster, ufrag.transceiver), int.from_bytes(ufrag.random, "big")
        if place >= 0:
            now = self._part.at(place)
            if (now.route, now.call) == (route, call):
                return place
        client = Address.from_sockaddr(name).packed
        if place < 0:
            if not is_client(name):
                return self._drop(Drop.SOURCE)
            known = self._part.find(client, now_ms) if self.draining else None
            if self.draining and (known is None or known.call != call):
                return self._drop(Drop.DRAINING)
            if not self._part.room_for(client):
                return self._drop(Drop.SOURCE_LIMIT)
        added = self._part.add(client, route, call, now_ms, now_s)
        if added is None:
            return self._drop(Drop.NO_ROUTE)
        self._held.made(client, route, call)
        return added

    def _drop(self, reason: str) -> int:
        self._counters.drop(reason)
        return -1


def is_client(sockaddr: bytes) -> bool:
    """Whether answers can go to a source: a unicast address without a scope, and a port."""
    address = ipaddress.IPv6Address(sockaddr[8:24])
    inner = address.ipv4_mapped or address
    return not (
        sockaddr[2:4] == b"\0\0"
        or sockaddr[24:28] != b"\0\0\0\0"
        or address.is_link_local
        or inner.is_multicast
        or inner.is_unspecified
        or inner == ipaddress.IPv4Address(0xFFFFFFFF)
    )
