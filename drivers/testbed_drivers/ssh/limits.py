"""How long anything may take, and how much may come back."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a connection. Times in seconds, sizes in bytes.

    Attributes:
        connect_s: for a TCP connection to be accepted.
        handshake_s: for the SSH greeting and key exchange.
        login_s: for each way of logging in to be answered.
        command_s: for a command to end, unless it says otherwise.
        answer_s: for the device to accept a command; an idle device that takes longer counts as silent.
        keepalive_s: an idle connection sends something so often.
        dead_s: a peer that acknowledges nothing for so long is gone (TCP_USER_TIMEOUT).
        output_bytes: what a command may print, on stdout and stderr each.
        sessions: commands at once on one device. OpenSSH takes 10 by default, and one that has just ended may still
            count beside the one that follows it.
    """

    connect_s: float = 10.0
    handshake_s: float = 15.0
    login_s: float = 15.0
    command_s: float = 30.0
    answer_s: float = 10.0
    keepalive_s: float = 5.0
    dead_s: float = 15.0
    output_bytes: int = 8 << 20
    sessions: int = 5


class Deadline:
    """A moment after which nothing is waited for any more."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds that are left, never below 0."""
        return max(0.0, self._at - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether it has passed."""
        return self.left_s == 0.0
