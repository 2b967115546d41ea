"""What the signalling side knows of calls. It outlives the process that has them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

#: How long, and of how many, the end can still be asked for.
_REMEMBERED_S: Final = 300.0
_MOST_REMEMBERED: Final = 4096


@dataclass
class Known:
    """A call as its client may ask for it.

    Attributes:
        name: 128 random bits; who has it may end the call.
        source: who asked for it, an address.
        state: opening, new, connected or ended.
        reason: why it ended.
    """

    name: str
    source: str
    state: str = "opening"
    reason: str = ""
    ended_s: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Calls:
    """All of them, and those that ended lately."""

    def __init__(self) -> None:
        self._calls: dict[str, Known] = {}
        self._live = 0
        self._per_source: Counter[str] = Counter()

    @property
    def live(self) -> int:
        """How many have not ended."""
        return self._live

    def of(self, source: str) -> int:
        """How many of a source have not ended."""
        return self._per_source[source]

    def get(self, name: str) -> Known | None:
        """By its name."""
        return self._calls.get(name)

    def add(self, source: str) -> Known:
        """A new one."""
        self._forget()
        known = Known(secrets.token_hex(16), source)
        self._calls[known.name] = known
        self._live += 1
        self._per_source[source] += 1
        return known

    def changed(self, known: Known, state: str, reason: str = "") -> None:
        """It is in another state; what has ended stays so."""
        if known.state == "ended":
            return
        known.state, known.reason = state, reason
        if state == "ended":
            known.ended_s = time.monotonic()
            self._live -= 1
            self._per_source[known.source] -= 1
            self._per_source += Counter()
            known.over.set()

    def drop(self, known: Known) -> None:
        """It never came to be."""
        self.changed(known, "ended", "never came to be")
        self._calls.pop(known.name, None)

    def lost(self, reason: str) -> int:
        """All that live have ended at once; how many."""
        live = [known for known in self._calls.values() if known.state != "ended"]
        for known in live:
            self.changed(known, "ended", reason)
        return len(live)

    def _forget(self) -> None:
        ended = [known for known in self._calls.values() if known.state == "ended"]
        ended.sort(key=lambda known: known.ended_s)
        before = time.monotonic() - _REMEMBERED_S
        excess = len(ended) - _MOST_REMEMBERED
        for at, known in enumerate(ended):
            if at < excess or known.ended_s < before:
                del self._calls[known.name]
