"""The relay's supervisor: owns every socket and all shared memory, and sees to it that the workers run."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from testbed.errors import BedError
from testbed.voice.relay.children import Child
from testbed.voice.relay.configuration import Configuration
from testbed.voice.relay.control import StatusServer
from testbed.voice.relay.counters import Counters, StoreState, StoreWord, Word
from testbed.voice.relay.metrics import Exporter
from testbed.voice.relay.options import Options
from testbed.voice.relay.sessions import SessionMap, new_secret
from testbed.voice.relay.snapshot import Source
from testbed.voice.relay.sockets import Sockets
from testbed.voice.relay.store import Store
from testbed.voice.relay.worker import CONFIGURE, DRAIN, Place, Worker, say

_LOOK_S: Final = 1.0
#: How often it is looked whether the workers are ready at first.
_READY_S: Final = 0.005
_DRAIN_LOOK_S: Final = 0.1
_KILLED: Final = 128
_STOPS: Final = (signal.SIGINT, signal.SIGTERM)


class Supervisor:
    """One relay, from its sockets to its end."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        """Bind, read the files, and make what the workers share; start nothing yet.

        Args:
            options: see there.
            tell: takes a line for whoever runs the relay.

        Raises UsageError and InfrastructureError.
        """
        self._options, self._tell = options, tell
        self._configuration = Configuration.load(options.table, options.keys, 1)
        self._looks = self._look()
        self._refused = ""
        self.sockets = Sockets.open(options.listen, options.internal, options.workers)
        counters = Counters(Counters.make(options.workers), options.workers)
        self.source = Source(counters, self.sockets)
        sessions_fd = SessionMap.make(options.workers, options.settings.sessions)
        self._sessions = SessionMap(sessions_fd, options.workers, new_secret())
        self._controls: list[socket.socket] = []
        self._links = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(options.workers)]
        self._exporter = Exporter(options.metrics, self.source) if options.metrics else None
        self._status = StatusServer(os.getpid(), self.status)
        self._draining_until: float | None = None
        self._workers = [Child(f"worker {index}", lambda: None) for index in range(options.workers)]
        self._others: list[Child] = []

    def run(self) -> int:
        """Relay until a signal; returns the exit code."""
        wakeup = self._catch_signals()
        # What is there now is there for good: workers that are forked need not look through it.
        gc.collect()
        gc.freeze()
        for index in range(self._options.workers):
            self._controls.append(socket.socket())
            self._start(index)
        if self._options.store:
            words = self.source.counters.store
            words[StoreWord.STATE] = StoreState.DOWN
            ends = [store for _, store in self._links]
            make = partial(Store, self._options.store, ends, words, self._options.settings.store_ttl_s)
            self._others.append(Child("store", lambda: make().run()))
        if self._exporter:
            self._others.append(Child("metrics", self._exporter.serve))
        for child in self._others:
            child.start()
        try:
            return self._loop(wakeup)
        finally:
            for child in (*self._workers, *self._others):
                child.kill()
            self._close()

    @property
    def told(self) -> str:
        """Where it is, as one line."""
        public, internal = self.sockets.addresses
        parts = [f"clients {public}", f"transceivers {internal}"]
        if self._exporter:
            parts.append(f"metrics {self._exporter.address}")
        return f"relay {os.getpid()}: " + ", ".join(parts)

    def status(self) -> dict[str, Any]:
        """All there is to tell; no secrets."""
        public, internal = self.sockets.addresses
        table = self._configuration.table
        return {
            "pid": os.getpid(),
            "listen": str(public),
            "internal": str(internal),
            "metrics": str(self._exporter.address) if self._exporter else None,
            "table": str(self._options.table.absolute()),
            "cluster": table.cluster,
            "transceivers": len(table.transceivers),
            "clusters": len(table.clusters),
            "configuration": self._configuration.number,
            "refused": self._refused or None,
            "draining": self._draining_until is not None,
            "receive_buffer_bytes": self.sockets.buffers(),
            **self.source.take(),
        }

    def _loop(self, wakeup: socket.socket) -> int:
        poller = select.poll()
        poller.register(wakeup, select.POLLIN)
        poller.register(self._status, select.POLLIN)
        next_look = time.monotonic() + _LOOK_S
        ready_told = False
        while True:
            if not ready_told and self._ready():
                self._tell(self.told)
                ready_told = True
            waits = [next_look - time.monotonic() if ready_told else _READY_S]
            waits += [_DRAIN_LOOK_S] if self._draining_until is not None else []
            waits += [due for child in (*self._workers, *self._others) if (due := child.due_in_s()) is not None]
            ready = {fd for fd, _ in poller.poll(max(0.0, min(waits)) * 1000)}
            if wakeup.fileno() in ready:
                code = self._signals(wakeup.recv(256))
                if code is not None:
                    return code
            if self._status.fileno() in ready:
                self._status.answer()
            self._mind_children()
            if self._drained():
                return 0
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_S
                if self._look() != self._looks:
                    self._reload()

    def _drained(self) -> bool:
        """Whether no session is left with any worker, or their time is over."""
        if self._draining_until is None:
            return False
        words = [row.words for row in self.source.counters.workers]
        # Of calls that come by another relay there is no session, only when the last datagram of one came.
        lately = time.monotonic_ns() // 1_000_000 - self._options.settings.idle_ms
        left = any(
            each[Word.SESSIONS] or not each[Word.DRAINING] or int(each[Word.RELAYED_MS]) > max(lately, 0)
            for each in words
        )
        return not left or time.monotonic() > self._draining_until

    def _ready(self) -> bool:
        """Whether every worker is in its loop."""
        rows = self.source.counters.workers
        return all(row.words[Word.PID] == child.pid for row, child in zip(rows, self._workers, strict=True))

    def _signals(self, numbers: bytes) -> int | None:
        """Act on signals; an exit code where the relay is to end now."""
        for number in numbers:
            if number == signal.SIGHUP:
                self._reload()
            elif number == signal.SIGINT or (number == signal.SIGTERM and self._draining_until is not None):
                return _KILLED + signal.SIGINT if number == signal.SIGINT else 0
            elif number == signal.SIGTERM:
                seconds = self._options.settings.drain_s
                self._draining_until = time.monotonic() + seconds
                self._tell(f"no new sessions from now on; those there are go on for up to {seconds:g} s")
                for control in self._controls:
                    with contextlib.suppress(OSError):
                        say(control, DRAIN)
        return None

    def _reload(self) -> None:
        self._looks = self._look()
        try:
            configuration = Configuration.load(self._options.table, self._options.keys, self._configuration.number + 1)
        except BedError as error:
            self._refused = str(error)
            self._tell("the relay goes on as it was:\n" + str(error))
            return
        self._refused = ""
        self._configuration = configuration
        for index, control in enumerate(self._controls):
            fd = configuration.to_memory()
            try:
                say(control, CONFIGURE, [fd])
            except OSError:
                # A worker that has not read dozens of them starts anew with the last.
                os.kill(self._workers[index].pid, signal.SIGKILL)
            finally:
                os.close(fd)
        self._tell(f"table and keys taken anew, number {configuration.number}")

    def _mind_children(self) -> None:
        for child in (*self._workers, *self._others):
            code = child.reap()
            if code:
                self._tell(f"{child.name} ended with {code}")
                if child.name == "store":
                    self.source.counters.store[StoreWord.STATE] = StoreState.DOWN
        for index, child in enumerate(self._workers):
            if child.due_in_s() == 0:
                self._start(index)
        for child in self._others:
            if child.due_in_s() == 0:
                child.start()

    def _start(self, index: int) -> None:
        """Fork a worker, with a control socket of its own: what was said to one before it is not for this one."""
        self._controls[index].close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._controls[index] = ours
        place = Place(
            index,
            self.sockets.public[index],
            self.sockets.internal[index],
            theirs,
            self._links[index][0] if self._options.store else None,
            self._sessions,
            self.source.counters,
        )
        if self._draining_until is not None:
            say(ours, DRAIN)
        child = self._workers[index]
        child.main = partial(self._work, place)
        child.start()
        theirs.close()

    def _work(self, place: Place) -> None:
        if self._options.pinned:
            processors = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {processors[place.index % len(processors)]})
        Worker(place, self._configuration, self._options.settings).run()

    def _look(self) -> tuple[tuple[int, ...], ...]:
        """What tells one state of the files from another."""
        looks: list[tuple[int, ...]] = []
        for path in (self._options.table, self._options.keys):
            try:
                stat = path.stat()
                looks.append((stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode))
            except OSError:
                looks.append(())
        return tuple(looks)

    def _catch_signals(self) -> socket.socket:
        reads, writes = socket.socketpair()
        for each in (reads, writes):
            each.setblocking(False)
        signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
        for number in (*_STOPS, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)
        self._wakeup_writes = writes
        return reads

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._status.close()
        self.sockets.close()
        if self._exporter:
            self._exporter.close()


def complain(text: str) -> None:
    """Tell a line on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a server's own voice
