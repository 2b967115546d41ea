"""The store's process: sessions kept in Redis by batches, and looked for there. Workers never wait for it.

A session is a key of its client with its cluster, transceiver and call, as numbers: even who can write to the store
cannot have a relay send anywhere but to an address of its table.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import numpy as np

from testbed.errors import UnsupportedError, UsageError
from testbed.voice.relay.counters import StoreState, StoreWord, Words
from testbed.voice.relay.embedded import EmbeddedServer
from testbed.voice.relay.storewire import (
    LOOKUP,
    Entry,
    not_known,
    pack_entries,
    unpack_entries,
    unpack_lookup,
)

if TYPE_CHECKING:
    import redis

_PREFIX: Final = b"testbed:relay:1:"
_TIMEOUT_S: Final = 0.2
_RETRY_S: Final = (0.02, 1.0)
_MESSAGES_AT_ONCE: Final = 64
_MOST_URL: Final = 4096
_VALUE_BYTES: Final = 16


@dataclass(frozen=True)
class StoreChoice:
    """Which store: the URL of a server, or one of the relay's own.

    Attributes:
        url: may hold a password: not to be shown.
        embedded: start a server.
        directory: where that keeps its data; None: in memory only.
    """

    url: str = ""
    embedded: bool = False
    directory: Path | None = None

    def __repr__(self) -> str:
        return "StoreChoice(embedded)" if self.embedded else "StoreChoice(url)"

    @classmethod
    def parse(cls, text: str) -> StoreChoice | None:
        """Read ``none``, ``embedded``, ``embedded:DIR``, a URL, or ``@FILE`` with a URL in it. Raises UsageError."""
        if text == "none":
            return None
        kind, _, rest = text.partition(":")
        if kind == "embedded":
            return cls(embedded=True, directory=Path(rest) if rest else None)
        where = "--store"
        if text.startswith("@"):
            where, text = text[1:], _secret(Path(text[1:]))
        elif urlsplit(text).password:
            raise UsageError(
                "a password on the command line is seen by everybody on the machine",
                where=where,
                expected="the URL in a file that only you may read: --store @FILE",
            )
        if urlsplit(text).scheme not in ("redis", "rediss", "unix"):
            raise UsageError(
                "this is no store",
                where=where,
                found="" if where != "--store" else repr(text[:40]),
                expected="none, embedded, embedded:DIR, redis://HOST:PORT/N, unix:///PATH or @FILE with such a URL",
            )
        return cls(url=text)


def require_client() -> None:
    """Raise UnsupportedError where redis-py is not installed."""
    try:
        import redis  # noqa: F401
    except ImportError:
        raise UnsupportedError(
            "the client for Redis is not installed", where="--store", remedy="pip install 'mrc-testbed[voice]'"
        ) from None


class Store:
    """The process's loop."""

    def __init__(self, choice: StoreChoice, links: Sequence[socket.socket], words: Words, ttl_s: int) -> None:
        """``links``: to the workers. ``words``: the store's figures, shared. ``ttl_s``: what a session is kept for."""
        self._choice, self._links, self._words, self._ttl_s = choice, links, words, ttl_s
        self._server = EmbeddedServer(choice.directory) if choice.embedded else None
        self._client: redis.Redis | None = None
        self._retry_s, self._next_try = _RETRY_S[0], 0.0

    def run(self) -> None:
        """Serve until killed."""
        self._words[StoreWord.PID] = os.getpid()
        self._words[StoreWord.STARTS] += np.uint64(1)
        poller = select.poll()
        for link in self._links:
            poller.register(link, select.POLLIN)
        while True:
            self._connect()
            poller.poll(50 if self._client is None else 500)
            writes: dict[bytes, Entry] = {}
            lookups: list[tuple[socket.socket, list[bytes]]] = []
            for link in self._links:
                self._read(link, writes, lookups)
            self._serve(writes, lookups)

    @staticmethod
    def _read(
        link: socket.socket, writes: dict[bytes, Entry], lookups: list[tuple[socket.socket, list[bytes]]]
    ) -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                message = link.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if message[:1] == LOOKUP:
                lookups.append((link, unpack_lookup(message[1:])))
            else:
                writes.update((entry.client, entry) for entry in unpack_entries(message[1:]))

    def _serve(self, writes: dict[bytes, Entry], lookups: list[tuple[socket.socket, list[bytes]]]) -> None:
        wanted = [client for _, clients in lookups for client in clients]
        found: dict[bytes, Entry] = {}
        if self._client is None:
            self._words[StoreWord.DROPPED] += np.uint64(len(writes))
        elif wanted or writes or time.monotonic() >= self._next_try:
            try:
                found = self._ask(self._client, writes, wanted)
                self._words[StoreWord.WRITTEN] += np.uint64(len(writes))
                self._next_try = time.monotonic() + _RETRY_S[1]
            except Exception:
                # Whatever the client raises, the store is not to be relied on; calls go on without it.
                self._lost()
                self._words[StoreWord.DROPPED] += np.uint64(len(writes))
        self._words[StoreWord.LOOKUPS] += np.uint64(len(wanted))
        self._words[StoreWord.FOUND] += np.uint64(len(found))
        for link, clients in lookups:
            answer = pack_entries(found.get(client, not_known(client)) for client in clients)
            # A worker that does not read lets its datagrams wait in vain, for a bounded time.
            with contextlib.suppress(OSError):
                link.send(answer, socket.MSG_DONTWAIT)

    def _ask(self, client: redis.Redis, writes: dict[bytes, Entry], wanted: list[bytes]) -> dict[bytes, Entry]:
        pipe: Any = client.pipeline(transaction=False)
        if wanted:
            pipe.mget([_PREFIX + each for each in wanted])
        for entry in writes.values():
            value = entry.route.to_bytes(8, "big") + entry.call.to_bytes(8, "big")
            pipe.set(_PREFIX + entry.client, value, ex=self._ttl_s)
        if not wanted and not writes:
            pipe.ping()
        answers = pipe.execute()
        if not wanted:
            return {}
        return {
            each: Entry(each, int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big"))
            for each, value in zip(wanted, answers[0], strict=True)
            if value is not None and len(value) == _VALUE_BYTES
        }

    def _connect(self) -> None:
        if self._client is not None or time.monotonic() < self._next_try:
            return
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            if self._server is not None:
                self._server.ensure()
            client = redis.Redis.from_url(
                self._server.url if self._server else self._choice.url,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
            client.ping()
        except Exception:
            self._lost()
            return
        self._client, self._retry_s = client, _RETRY_S[0]
        self._words[StoreWord.CONNECTS] += np.uint64(1)
        self._words[StoreWord.STATE] = StoreState.UP

    def _lost(self) -> None:
        self._words[StoreWord.STATE] = StoreState.DOWN
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close()
            self._client = None
        self._next_try = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _RETRY_S[1])


def _secret(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise UsageError(
                    "others may read the file", where=str(path), found=f"mode {mode:04o}", remedy=f"chmod 600 {path}"
                )
            return file.read(_MOST_URL).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the file cannot be read", where=str(path), found=type(error).__name__) from None
