"""What a worker and the store tell each other, and the datagrams that wait for an answer. Never blocks."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from testbed.voice.relay.counters import Drop, StoreState, StoreWord, Word, Words, WorkerCounters
from testbed.voice.relay.settings import Settings
from testbed.voice.relay.storewire import MOST_ENTRIES, Entry, pack_lookup, pack_write, unpack_entries

#: How long a client that the store does not know is not asked for again.
_UNKNOWN_MS: Final = 1000
_MOST_UNKNOWN: Final = 4096
_MOST_WRITES: Final = 16384


@dataclass
class _Waiting:
    until_ms: int
    payloads: list[bytes] = field(default_factory=list)


class Held:
    """Datagrams of unknown clients, by port and address of the client; and sessions on their way to the store."""

    def __init__(self, link: socket.socket | None, store: Words, settings: Settings, counters: WorkerCounters) -> None:
        """``link``: to the store's process, None where there is none. ``store``: its figures."""
        self._link, self._store, self._settings, self._counters = link, store, settings, counters
        self._waiting: dict[bytes, _Waiting] = {}
        self._count = 0
        self._unknown: dict[bytes, int] = {}
        self._asked: list[bytes] = []
        self._writes: dict[bytes, Entry] = {}
        self._released: list[tuple[bytes, list[bytes]]] = []

    def __bool__(self) -> bool:
        return self._count > 0

    def hold(self, client: bytes, payload: bytes, now_ms: int) -> str | None:
        """Keep a datagram until the store has said whose it is. Returns why not, or None."""
        if self._link is None or self._store[StoreWord.STATE] != StoreState.UP:
            return Drop.UNKNOWN_CLIENT
        waiting = self._waiting.get(client)
        if waiting is None:
            if self._unknown.get(client, 0) > now_ms:
                return Drop.UNKNOWN_CLIENT
            if self._count >= self._settings.held:
                return Drop.BUSY
            waiting = self._waiting[client] = _Waiting(now_ms + self._settings.hold_ms)
            self._asked.append(client)
        if len(waiting.payloads) >= self._settings.held_per_client or self._count >= self._settings.held:
            return Drop.BUSY
        waiting.payloads.append(payload)
        self._count += 1
        self._counters.set(Word.HELD, self._count)
        return None

    def made(self, client: bytes, route: int, call: int) -> None:
        """A session was made: what waits for it can go, and the store will hear of it."""
        self.write((Entry(client, route, call),))
        self._unknown.pop(client, None)
        self._release(client)

    def write(self, entries: Iterable[Entry]) -> None:
        """Have the store told of sessions, in :meth:`flush`."""
        if self._link is None:
            return
        for entry in entries:
            if len(self._writes) >= _MOST_WRITES and entry.client not in self._writes:
                self._counters.add(Word.STORE_DROPPED)
            else:
                self._writes[entry.client] = entry

    def flush(self) -> None:
        """Tell the store what there is to tell; what its queue does not take is dropped and counted."""
        if self._link is None:
            return
        asked, self._asked = self._asked, []
        for at in range(0, len(asked), MOST_ENTRIES):
            self._tell(pack_lookup(asked[at : at + MOST_ENTRIES]))
        if self._writes:
            entries = list(self._writes.values())
            self._writes.clear()
            for at in range(0, len(entries), MOST_ENTRIES):
                some = entries[at : at + MOST_ENTRIES]
                if not self._tell(pack_write(some)):
                    self._counters.add(Word.STORE_DROPPED, len(some))

    def answers(self, now_ms: int) -> list[Entry]:
        """What the store has found since; the datagrams of these clients are released, others' are dropped."""
        found: list[Entry] = []
        while self._link is not None:
            try:
                message = self._link.recv(1 << 16, socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                break
            if not message:
                break
            for entry in unpack_entries(message):
                if entry.known:
                    found.append(entry)
                    self._release(entry.client)
                else:
                    self._give_up(entry.client, Drop.UNKNOWN_CLIENT, now_ms)
        return found

    def expire(self, now_ms: int) -> None:
        """Drop what has waited for too long."""
        for client in [client for client, waiting in self._waiting.items() if waiting.until_ms <= now_ms]:
            self._give_up(client, Drop.HELD_TOO_LONG, now_ms)

    def released(self) -> list[tuple[bytes, list[bytes]]]:
        """Clients that are known by now, with what they sent before."""
        out, self._released = self._released, []
        return out

    def _release(self, client: bytes) -> None:
        waiting = self._waiting.pop(client, None)
        if waiting is not None:
            self._count -= len(waiting.payloads)
            self._counters.set(Word.HELD, self._count)
            self._released.append((client, waiting.payloads))

    def _give_up(self, client: bytes, reason: str, now_ms: int) -> None:
        waiting = self._waiting.pop(client, None)
        if waiting is None:
            return
        self._count -= len(waiting.payloads)
        self._counters.set(Word.HELD, self._count)
        self._counters.drop(reason, len(waiting.payloads))
        if len(self._unknown) >= _MOST_UNKNOWN:
            self._unknown.clear()
        self._unknown[client] = now_ms + _UNKNOWN_MS

    def _tell(self, message: bytes) -> bool:
        assert self._link is not None
        try:
            self._link.send(message, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True
