"""What rules have counted by the time they end, kept for whoever asks: whoever ends them, and if it is by dying."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

from testbed.fabric.netns.keeper.namespaces import Namespaces
from testbed.fabric.netns.netlink import attributes, messages
from testbed.fabric.netns.syscalls import wait_for_packets_under_way

#: NFTA_OBJ_TABLE, NFTA_OBJ_DATA, and in that of a counter NFTA_COUNTER_PACKETS.
_TABLE, _DATA, _PACKETS = 1, 4, 2


class Tally(NamedTuple):
    """How the counters of a claim are read when it ends.

    ``label``: what their sum is added to; ``stop``: messages after which no packet meets them any more, though they are
    there; ``ask``: a dump request for objects of nf_tables, of which those of ``table`` count.
    """

    label: str
    namespace: int
    stop: bytes
    ask: bytes
    table: str


class Ended(NamedTuple):
    """CLOCK_REALTIME (ns) before and after it was stopped, and what it had counted by then."""

    before: int
    after: int
    packets: int


class Tallies:
    """Label → packets, of all that has ended so far. There are as many labels as places and things to count."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self.total: dict[str, int] = {}

    def take(self, ending: Sequence[Tally]) -> list[Ended]:
        """Stop all of these, and read them when the packets that were at them are through: none goes uncounted."""
        stamps = []
        for tally in ending:
            before = time.time_ns()
            # One that is gone has stopped.
            with contextlib.suppress(OSError, ValueError):
                self._namespaces.execute(tally.namespace, tally.stop)
            stamps.append((before, time.time_ns()))
        if ending:
            wait_for_packets_under_way()
        ended = [Ended(*stamp, self._read(tally)) for tally, stamp in zip(ending, stamps, strict=True)]
        for tally, each in zip(ending, ended, strict=True):
            self.total[tally.label] = self.total.get(tally.label, 0) + each.packets
        return ended

    def _read(self, tally: Tally) -> int:
        try:
            answer = self._namespaces.dump(tally.namespace, tally.ask)
        except (OSError, ValueError):
            return 0
        packets = 0
        for _, body in messages(answer):
            told = attributes(body[4:])
            if told.get(_TABLE, b"").rstrip(b"\0").decode(errors="replace") == tally.table and _DATA in told:
                packets += int.from_bytes(attributes(memoryview(told[_DATA])).get(_PACKETS, b""), "big")
        return packets
