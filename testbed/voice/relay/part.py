"""A worker's part of the session map, and what only the worker needs of each session."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

from testbed.voice.addresses import Address
from testbed.voice.framing import HEADER_BYTES, seal
from testbed.voice.keys import Keys
from testbed.voice.relay.counters import Word, WorkerCounters
from testbed.voice.relay.sessions import WAYS, Found, SessionMap, numbers_of
from testbed.voice.relay.settings import Settings
from testbed.voice.relay.targets import Targets

#: A header is sealed anew after this, seconds: well within what it is good for.
RESEAL_S: Final = 20
#: Headers sealed anew for one batch, at most; the old ones are still good.
_RESEAL_AT_ONCE: Final = 32
_NEVER: Final = np.uint64(2**64 - 1)


class Part:
    """Sessions of one worker, by the ``sockaddr_in6`` of their client.

    Attributes:
        places: where each is: rows of the arrays below, and of the worker's part of the shared map.
        heads: sealed headers, as words.
        pointers: addresses of the ``sockaddr_in6`` of their targets.
        seen_ms: when the last datagram came, CLOCK_MONOTONIC; shared.
        changes: sessions made and ended so far.
    """

    def __init__(
        self,
        sessions: SessionMap,
        part: int,
        settings: Settings,
        keys: Keys,
        targets: Targets,
        counters: WorkerCounters,
    ) -> None:
        self._map, self._part, self._settings, self._targets = sessions, part, settings, targets
        self._counters = counters
        self.keys = keys
        self._rows = sessions.rows[part].reshape(-1)
        count = len(self._rows)
        self.places: dict[bytes, int] = {}
        self.heads: npt.NDArray[np.uint64] = np.zeros((count, HEADER_BYTES // 8), np.uint64)
        self.pointers: npt.NDArray[np.uint64] = np.zeros(count, np.uint64)
        self._sealed_s: npt.NDArray[np.int64] = np.zeros(count, np.int64)
        self.seen_ms: npt.NDArray[np.uint64] = self._rows["seen_ms"]
        self._sessions: dict[int, Found] = {}
        self._sources: Counter[bytes] = Counter()
        self._calls: dict[int, list[int]] = {}
        self.changes = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def recover(self, now_ms: int, now_s: int) -> None:
        """Take over what a worker before this one left in the part."""
        for place in np.flatnonzero(self._rows["check"]).tolist():
            found = self._map.read(self._rows[place].copy())
            pointer = None if found is None else self._targets.pointer(*numbers_of(found.route))
            right_set = found is not None and self._map.set_of(found.client) == place // WAYS
            if found is None or pointer is None or not right_set or self._old(found.seen_ms, now_ms):
                self._map.clear(self._part, place)
                continue
            self._take(place, found, pointer, now_s)

    def all(self) -> list[Found]:
        """Every session."""
        return list(self._sessions.values())

    def find(self, client: bytes, now_ms: int) -> Found | None:
        """A session of the client in the part of any worker."""
        return self._map.find(client, now_ms - self._settings.idle_ms)

    def at(self, place: int) -> Found:
        """The session of a row."""
        return self._sessions[place]

    def add(self, client: bytes, route: int, call: int, now_ms: int, now_s: int) -> int | None:
        """Make a session, or send a client's from now on elsewhere. None: the table has no such route."""
        pointer = self._targets.pointer(*numbers_of(route))
        if pointer is None:
            return None
        name = Address.unpack(client).sockaddr
        before = self.places.get(name)
        if before is not None:
            self._forget(before)
        self._make_room(call)
        place = self._place(client) if before is None else before
        found = Found(client, route, call, now_ms)
        self._map.write(self._part, place, found)
        self._take(place, found, pointer, now_s)
        self._counters.add(Word.SESSIONS_MADE)
        return place

    def target(self, route: int) -> Address:
        """Where a session's datagrams go."""
        address = self._targets.table.address(*numbers_of(route))
        assert address is not None
        return address

    def room_for(self, client: bytes) -> bool:
        """Whether the client's source may have one more session with this worker."""
        return self._sources[Address.unpack(client).source] < self._settings.per_source

    def old(self, place: int, now_s: int) -> bool:
        """Whether a session's header is to be sealed anew."""
        return bool(abs(self._sealed_s[place] - now_s) > RESEAL_S)

    def freshen(self, places: npt.NDArray[np.int64], now_s: int) -> None:
        """Seal anew the headers of sessions that are about to send, where they are old."""
        # In the future: the clock was set back since.
        old = np.abs(self._sealed_s[places] - now_s) > RESEAL_S
        if old.any():
            for place in list(dict.fromkeys(places[old].tolist()))[:_RESEAL_AT_ONCE]:
                self._seal(place, now_s)

    def rekey(self, keys: Keys) -> None:
        """Seal with these keys from now on; headers follow as their sessions send."""
        self.keys = keys
        self._sealed_s[:] = 0

    def end_targets(self, gone: list[int]) -> None:
        """End the sessions whose target is no longer in the table."""
        if gone:
            for place in np.flatnonzero(np.isin(self.pointers, np.array(gone, np.uint64))).tolist():
                self.remove(place)

    def expire(self, now_ms: int) -> None:
        """End the sessions whose client has been silent for too long."""
        oldest = max(now_ms - self._settings.idle_ms, 0)
        for place in np.flatnonzero((self.pointers != 0) & (self.seen_ms < oldest)).tolist():
            self.remove(place)
            self._counters.add(Word.SESSIONS_EXPIRED)

    def remove(self, place: int) -> None:
        """End a session."""
        self._forget(place)
        self._map.clear(self._part, place)

    def _old(self, seen_ms: int, now_ms: int) -> bool:
        return seen_ms < now_ms - self._settings.idle_ms

    def _take(self, place: int, found: Found, pointer: int, now_s: int) -> None:
        self.changes += 1
        client = Address.unpack(found.client)
        self.places[client.sockaddr] = place
        self._sessions[place] = found
        self.pointers[place] = pointer
        self._sources[client.source] += 1
        self._calls.setdefault(found.call, []).append(place)
        self._seal(place, now_s)

    def _forget(self, place: int) -> None:
        self.changes += 1
        found = self._sessions.pop(place)
        client = Address.unpack(found.client)
        del self.places[client.sockaddr]
        self.pointers[place] = 0
        self._sources[client.source] -= 1
        if not self._sources[client.source]:
            del self._sources[client.source]
        of_call = self._calls[found.call]
        of_call.remove(place)
        if not of_call:
            del self._calls[found.call]

    def _make_room(self, call: int) -> None:
        """Keep to the addresses a call may have: who knows one ufrag must not fill the map from made-up sources."""
        of_call = self._calls.get(call, [])
        if len(of_call) >= self._settings.per_call:
            self._evict(min(of_call, key=self.seen_ms.__getitem__))

    def _place(self, client: bytes) -> int:
        start = self._map.set_of(client) * WAYS
        free = np.flatnonzero(self.pointers[start : start + WAYS] == 0)
        if len(free) and len(self) < self._settings.sessions:
            return start + int(free[0])
        if not len(free):
            oldest = start + int(self.seen_ms[start : start + WAYS].argmin())
            self._evict(oldest)
            return oldest
        self._evict(int(np.where(self.pointers != 0, self.seen_ms, _NEVER).argmin()))
        return start + int(free[0])

    def _evict(self, place: int) -> None:
        self.remove(place)
        self._counters.add(Word.SESSIONS_EVICTED)

    def _seal(self, place: int, now_s: int) -> None:
        found = self._sessions[place]
        header = seal(Address.unpack(found.client), *numbers_of(found.route), self.keys, now_s)
        self.heads[place] = np.frombuffer(header, np.uint64)
        self._sealed_s[place] = now_s
