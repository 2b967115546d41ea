"""The ACK timer of a queue pair: linear, then exponential retries; it runs while something is unacknowledged."""

from __future__ import annotations

from testbed.mrc.settings import Settings

#: A retry limit that means: for ever.
NO_LIMIT = 25
#: Waiting is doubled so many times at most, which matters only without a limit.
_DOUBLINGS = 18


class AckTimer:
    """Attributes.

    retries: expiries since the last progress. due_ns: next expiry; None while it does not run.
    """

    def __init__(self, settings: Settings) -> None:
        self._timeout_ns = settings.ack_timeout_ns
        self._linear = settings.linear_retries
        self._limit = settings.retry_limit
        self.retries = 0
        self.due_ns: int | None = None

    def interval_ns(self) -> int:
        """How long it waits now: the timeout while retries are linear, then twice as long for each one more."""
        return self._timeout_ns << min(max(0, self.retries - self._linear + 1), _DOUBLINGS)

    def start(self, now_ns: int) -> None:
        """Something is unacknowledged: run, unless it runs already."""
        if self.due_ns is None:
            self.due_ns = now_ns + self.interval_ns()

    def answered(self, now_ns: int) -> None:
        """The peer lives: wait again from now, without any progress made."""
        if self.due_ns is not None:
            self.due_ns = now_ns + self.interval_ns()

    def progress(self, now_ns: int) -> None:
        """Something was acknowledged."""
        self.retries = 0
        self.answered(now_ns)

    def stop(self) -> None:
        """Nothing is unacknowledged."""
        self.retries = 0
        self.due_ns = None

    def expire(self, now_ns: int) -> bool:
        """Count a retry and wait again; False where it was the last one allowed."""
        self.retries += 1
        self.due_ns = now_ns + self.interval_ns()
        return self._limit >= NO_LIMIT or self.retries <= self._limit
