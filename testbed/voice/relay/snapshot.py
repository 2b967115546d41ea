"""A relay's figures at one moment, as data: what ``status`` shows, and what Prometheus is given."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from testbed.voice.relay.counters import REASONS, Counters, Direction, StoreState, StoreWord, Word
from testbed.voice.relay.sockets import Sockets
from testbed.voice.stun import Kind

#: A worker that has not been through its loop for this long is not well, ms.
_STILL_MS: Final = 1000


@dataclass(frozen=True)
class Source:
    """Where the figures are."""

    counters: Counters
    sockets: Sockets

    def take(self) -> dict[str, Any]:
        """All figures; plain data."""
        now_ms = time.monotonic_ns() // 1_000_000
        workers = self.counters.workers
        reasons = {reason: sum(int(worker.drops[at]) for worker in workers) for at, reason in enumerate(REASONS)}
        return {
            "workers": [
                {
                    "worker": at,
                    "pid": int(worker.words[Word.PID]),
                    "running": now_ms - int(worker.words[Word.BEAT_MS]) < _STILL_MS,
                    "starts": int(worker.words[Word.STARTS]),
                    "sessions": int(worker.words[Word.SESSIONS]),
                    "draining": bool(worker.words[Word.DRAINING]),
                    "held": int(worker.words[Word.HELD]),
                    "configuration": int(worker.words[Word.CONFIGURATION]),
                    "received": {way.name.lower(): int(worker.packets[way].sum()) for way in Direction},
                    "socket_dropped": {"public": public, "internal": internal},
                }
                for at, (worker, (public, internal)) in enumerate(zip(workers, self.sockets.drops(), strict=True))
            ],
            "sessions": {
                name: sum(int(worker.words[word]) for worker in workers)
                for name, word in (
                    ("made", Word.SESSIONS_MADE),
                    ("expired", Word.SESSIONS_EXPIRED),
                    ("evicted", Word.SESSIONS_EVICTED),
                    ("adopted", Word.SESSIONS_ADOPTED),
                )
            },
            "received": {
                "inward": {
                    kind.name.lower(): sum(int(worker.packets[Direction.INWARD, kind]) for worker in workers)
                    for kind in Kind
                },
                "outward": {"framed": sum(int(worker.packets[Direction.OUTWARD].sum()) for worker in workers)},
            },
            "forwarded": {way.name.lower(): sum(int(worker.sent[way]) for worker in workers) for way in Direction},
            "bytes": {
                way.name.lower(): {
                    stage: sum(int(worker.octets[way, at]) for worker in workers)
                    for at, stage in enumerate(("received", "forwarded"))
                }
                for way in Direction
            },
            "dropped": reasons,
            "store": self._store(),
        }

    def _store(self) -> dict[str, Any]:
        words = self.counters.store
        lost = sum(int(worker.words[Word.STORE_DROPPED]) for worker in self.counters.workers)
        return {
            "state": StoreState(int(words[StoreWord.STATE])).name.lower(),
            "written": int(words[StoreWord.WRITTEN]),
            "dropped": int(words[StoreWord.DROPPED]) + lost,
            "lookups": int(words[StoreWord.LOOKUPS]),
            "found": int(words[StoreWord.FOUND]),
            "connects": int(words[StoreWord.CONNECTS]),
        }
