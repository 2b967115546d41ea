"""What a transceiver counts, and how it is told to the process that serves it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figures:
    """Counts of one process, from its start.

    Attributes:
        received, received_bytes, sent, sent_bytes: datagrams, and their bytes without headers.
        dropped: datagrams that went no further, by reason.
        checks: connectivity checks answered, by the code of the answer; 0 is success.
        calls: calls by what became of them: opened, connected, and their ends.
        moves: clients that went on from another address.
        audio: frames and packets of audio of the calls that are over, by what became of them.
        backend_dropped: what a backend, or the queue to it, did not take, by reason.
    """

    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    checks: Counter[int] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    moves: int = 0
    audio: Counter[str] = field(default_factory=Counter)
    backend_dropped: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """All of them."""
        return {
            "received": self.received,
            "received_bytes": self.received_bytes,
            "sent": self.sent,
            "sent_bytes": self.sent_bytes,
            "dropped": dict(self.dropped),
            "checks": {str(code): count for code, count in self.checks.items()},
            "calls": dict(self.calls),
            "moves": self.moves,
            "audio": dict(self.audio),
            "backend_dropped": dict(self.backend_dropped),
        }
