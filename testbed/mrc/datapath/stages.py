"""Where the NIC's processor time goes, by stage of its loop."""

from __future__ import annotations

import time
from enum import IntEnum


class Stage(IntEnum):
    """Stages of the loop.

    OUTSIDE: between two rounds: the workload. WAIT: ppoll, while there is nothing to do. GATHER: ppoll, for more
    packets to share a round. TAKE: finding packets in the ring and giving them back. DECODE: bytes to rows. RECEIVE:
    the engine's work on them, without PLACE, the copying of payloads into memory, and MESSAGES, what the workload does
    with those that are complete. TRANSMIT: the engine's work on what to send. ENCODE: rows to bytes. SEND: in
    sendmmsg, where on veth links the kernel also does the work of every hop. RECORD: samples, counters, events.
    """

    OUTSIDE = 0
    WAIT = 1
    GATHER = 2
    TAKE = 3
    DECODE = 4
    RECEIVE = 5
    PLACE = 6
    MESSAGES = 7
    TRANSMIT = 8
    ENCODE = 9
    SEND = 10
    RECORD = 11


class Stages:
    """A stopwatch that is always in one stage; costs about 0.3 microseconds a change when on.

    It counts the processor time of this thread, not the time that passes: what other processes take is not the NIC's.

    Attributes:
        total_ns: processor time by stage.
    """

    def __init__(self, *, on: bool) -> None:
        self.on = on
        self.total_ns = [0] * len(Stage)
        self._since = time.thread_time_ns()

    def end(self, stage: int) -> None:
        """Count the time since the last call for this stage."""
        if self.on:
            now = time.thread_time_ns()
            self.total_ns[stage] += now - self._since
            self._since = now

    def by_name(self) -> dict[str, int]:
        """Nanoseconds by counter name, ``mrc_stage_take_ns`` and so on; empty when off."""
        if not self.on:
            return {}
        return {f"mrc_stage_{stage.name.lower()}_ns": self.total_ns[stage] for stage in Stage}
