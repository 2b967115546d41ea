"""Where the NIC's processor time goes, by stage of its loop."""

from __future__ import annotations

import time
from enum import IntEnum


class Stage(IntEnum):
    """Stages of the loop.

    WAIT: ppoll, while there is nothing to do. GATHER: ppoll, for more packets to share a round. TAKE: finding
    packets in the ring and giving them back. DECODE: bytes to rows. RECEIVE: the engine's work on them, without
    PLACE, the copying of payloads into memory, and MESSAGES, what the workload does with those that are complete.
    TRANSMIT: the engine's work on what to send. ENCODE: rows to bytes. SEND: in sendmmsg, where on veth links the
    kernel also does the work of every hop. RECORD: samples, counters, events.
    """

    WAIT = 0
    GATHER = 1
    TAKE = 2
    DECODE = 3
    RECEIVE = 4
    PLACE = 5
    MESSAGES = 6
    TRANSMIT = 7
    ENCODE = 8
    SEND = 9
    RECORD = 10


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
