"""One worker: its two sockets, its batches, its part of the session map, and what the supervisor tells it."""

from __future__ import annotations

import array
import gc
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from testbed.kernel import precise_timers
from testbed.voice.framing import HEADER_BYTES, MOST_HEADERS
from testbed.voice.relay.batch import MOST_PAYLOAD, Batch
from testbed.voice.relay.configuration import Configuration
from testbed.voice.relay.counters import Counters, StoreWord, Word, Words, WorkerCounters
from testbed.voice.relay.downlink import Downlink
from testbed.voice.relay.held import Held
from testbed.voice.relay.part import Part
from testbed.voice.relay.sessions import Found, SessionMap
from testbed.voice.relay.settings import Settings
from testbed.voice.relay.storewire import Entry
from testbed.voice.relay.targets import Targets
from testbed.voice.relay.uplink import Uplink

#: What the supervisor says: a new configuration, whose descriptor comes along; take no new sessions.
CONFIGURE: Final = b"C"
DRAIN: Final = b"D"
_TICK_MS: Final = 20
_IDLE_MS: Final = 100
_SWEEP_MS: Final = 500
#: A batch costs about the same whether one datagram is in it or thirty. Where a few came at once, so many more are
#: waited for so long.
_FEW, _MANY, _GATHER_S = 2, 32, 100e-6
#: Of sessions that go to the store again, in one tick.
_REWRITES: Final = 512


@dataclass(frozen=True)
class Place:
    """All that a worker gets from its supervisor, which keeps every one of it.

    Attributes:
        index: which worker it is.
        public, internal: its sockets.
        control: where the supervisor speaks.
        link: where the store's process speaks; None where there is none.
        sessions, counters: what all workers share.
    """

    index: int
    public: socket.socket
    internal: socket.socket
    control: socket.socket
    link: socket.socket | None
    sessions: SessionMap
    counters: Counters


class Worker:
    """The loop. Runs until it is killed: what it answers may belong to a session of another worker."""

    def __init__(self, place: Place, configuration: Configuration, settings: Settings) -> None:
        self._place, self._settings = place, settings
        self._counters: WorkerCounters = place.counters.workers[place.index]
        store: Words = place.counters.store
        self._targets = Targets(configuration.table)
        keys = configuration.keys
        self._part = Part(place.sessions, place.index, settings, keys, self._targets, self._counters)
        self._held = Held(place.link, store, settings, self._counters)
        self._up_batch, self._down_batch = Batch(MOST_PAYLOAD), Batch(MOST_PAYLOAD + MOST_HEADERS * HEADER_BYTES)
        self._up = Uplink(self._up_batch, self._part, self._held, self._counters, keys)
        self._down = Downlink(self._down_batch, self._targets, self._counters, keys, 2 * settings.sessions + 1024)
        self._next_sweep_ms = self._next_rewrite_ms = 0
        self._rewrite: list[Found] = []
        self._store_connects = 0
        self._counters.set(Word.CONFIGURATION, configuration.number)

    def run(self) -> None:
        """Relay until killed."""
        now_ms = _now_ms()
        self._part.recover(now_ms, int(time.time()))
        self._counters.set(Word.PID, os.getpid())
        self._counters.set(Word.DRAINING, 0)
        self._counters.add(Word.STARTS)
        # Nothing here makes cycles, and a collection is a pause.
        gc.disable()
        precise_timers()
        public, internal = self._place.public.fileno(), self._place.internal.fileno()
        poller, next_tick = self._poller(), 0
        up_batch, down_batch, up, down = self._up_batch, self._down_batch, self._up, self._down
        while True:
            arrived = up_batch.receive(public)
            answered = down_batch.receive(internal)
            now_ms, now_s = _now_ms(), int(time.time())
            if arrived:
                up.take(arrived, internal, now_ms, now_s)
            if answered:
                down.take(answered, public, internal, now_ms, now_s)
            if now_ms >= next_tick:
                next_tick = now_ms + _TICK_MS
                self._tick(now_ms, now_s)
            if not arrived and not answered:
                self._held.flush()
                poller.poll(_TICK_MS if self._held else _IDLE_MS)
            elif _FEW <= arrived + answered < _MANY:
                time.sleep(_GATHER_S)

    def _poller(self) -> select.poll:
        poller = select.poll()
        for sock in (self._place.public, self._place.internal, self._place.control, self._place.link):
            if sock is not None:
                poller.register(sock, select.POLLIN)
        return poller

    def _tick(self, now_ms: int, now_s: int) -> None:
        """All that is not a datagram's."""
        self._counters.set(Word.BEAT_MS, now_ms)
        self._counters.set(Word.SESSIONS, len(self._part))
        self._hear()
        for entry in self._held.answers(now_ms):
            self._up.adopt(*entry, now_ms, now_s)
        self._held.expire(now_ms)
        self._up.release(self._place.internal, now_s)
        if now_ms >= self._next_sweep_ms:
            self._next_sweep_ms = now_ms + _SWEEP_MS
            self._part.expire(now_ms)
        self._write_again(now_ms)
        self._held.flush()

    def _write_again(self, now_ms: int) -> None:
        """Tell the store of all sessions once more, a part of them each tick, before it forgets them."""
        if self._place.link is None:
            return
        connects = int(self._place.counters.store[StoreWord.CONNECTS])
        if connects != self._store_connects:
            # A server that is new, or has come back, may have nothing.
            self._store_connects, self._next_rewrite_ms = connects, now_ms
        if not self._rewrite and now_ms >= self._next_rewrite_ms:
            self._next_rewrite_ms = now_ms + self._settings.store_ttl_s * 1000 // 3
            self._rewrite = self._part.all()
        some, self._rewrite = self._rewrite[-_REWRITES:], self._rewrite[:-_REWRITES]
        self._held.write(Entry(each.client, each.route, each.call) for each in some)

    def _hear(self) -> None:
        while True:
            try:
                said, descriptors = _receive(self._place.control)
            except BlockingIOError:
                return
            if said == DRAIN:
                self._up.draining = True
                self._counters.set(Word.DRAINING, 1)
            elif said == CONFIGURE:
                self._configure(Configuration.from_memory(descriptors[0]))
            elif not said:
                return

    def _configure(self, configuration: Configuration) -> None:
        self._part.end_targets(self._targets.replace(configuration.table))
        self._part.rekey(configuration.keys)
        self._up.rekey(configuration.keys)
        self._down.forget(configuration.keys)
        self._counters.set(Word.CONFIGURATION, configuration.number)


def say(control: socket.socket, said: bytes, descriptors: Sequence[int] = ()) -> None:
    """The supervisor's side. Raises OSError where the worker's queue is full."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    control.sendmsg([said], rights, socket.MSG_DONTWAIT)


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    said, rights, _, _ = control.recvmsg(1, socket.CMSG_SPACE(4), flags)
    descriptors = array.array("i")
    for _, _, data in rights:
        descriptors.frombytes(data)
    return said, list(descriptors)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
