"""When a responder sends reliability SACKs, and what they say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from testbed.mrc import psn as psns
from testbed.mrc.codes import SackMark
from testbed.mrc.rows import SACK_OUT, Dscp, Rows
from testbed.mrc.window import CHUNK, CHUNK_BITS, ReceiveWindow

#: An enumeration's member costs a look-up of a microsecond each time.
_CONTROL = int(Dscp.CONTROL)
_NO_SACKS = np.zeros(0, SACK_OUT)
#: ooo_count has 15 bits, ack_psn_offset 16 with a sign.
_MOST_HELD = (1 << 15) - 1
_FURTHEST_BACK = -(1 << 15)


class Trigger(NamedTuple):
    """What a SACK answers: a packet's PSN (unwrapped), the EV it came on, the stamp it carried."""

    psn: int
    ev: int
    stamp: int
    mark: SackMark = SackMark.NONE
    probe: bool = False


class Advice(NamedTuple):
    """What SACKs carry beside acknowledgements: down ports, back-pressure, and bytes received for the first time."""

    port_state: int
    rcv_cwnd_pen: int
    received_bytes: int


class SackBuilder:
    """Collects arrivals and reasons, and makes of them the SACKs of one occasion."""

    def __init__(self, qp: int, dqp: int, mpr: int, packets: int, window: ReceiveWindow) -> None:
        self._qp, self._dqp, self._mpr, self._packets = qp, dqp, mpr, packets
        self._window = window
        self._unreported: set[int] = set()
        self._arrivals = 0
        self._newest: Trigger | None = None
        self._due: Trigger | None = None
        self._marked: dict[int, Trigger] = {}
        self._probe: Trigger | None = None

    def arrived(self, chunks: Iterable[int], count: int, newest: Trigger) -> None:
        """First arrivals, ``count`` in ``chunks``: they are told when enough have come, or something else asks."""
        self._unreported.update(chunks)
        self._arrivals += count
        self._newest = newest
        if self._arrivals >= self._packets:
            self._due = newest

    def ask(self, trigger: Trigger) -> None:
        """A packet that has arrived wants a SACK at once: by Flag.A, as a retransmission, or as a duplicate."""
        self._due = trigger

    def ask_for_rest(self) -> None:
        """A packet with Flag.A that was not taken: it cannot be acknowledged, but what came before it can."""
        if self._due is None:
            self._due = self._newest

    def mark(self, trigger: Trigger) -> None:
        """A packet came with ECN CE."""
        self._marked[trigger.ev] = trigger._replace(mark=SackMark.SKIP_ONCE)

    def probe(self, ev: int, stamp: int) -> None:
        """A reliability probe came; of several the newest is answered."""
        self._probe = Trigger(0, ev, stamp, probe=True)

    def clear(self) -> None:
        """Drop what was to be said."""
        self._unreported.clear()
        self._arrivals = 0
        self._newest = self._due = self._probe = None
        self._marked.clear()

    def build(self, advice: Advice) -> Rows:
        """SACK_OUT rows for the reasons since the last call; none where there are none."""
        window = self._window
        triggers = list(self._marked.values())
        if self._probe is not None:
            triggers.append(self._probe._replace(psn=window.cack))
        elif self._due is not None and (not triggers or self._due.psn != triggers[-1].psn):
            triggers.append(self._due)
        if not triggers:
            return _NO_SACKS
        chunks = self._chunks()
        count = max(len(triggers), len(chunks))
        chunks += chunks[:1] * (count - len(chunks))
        if count > len(triggers):
            more = triggers[-1]._replace(mark=SackMark.NONE)  # a mark is told once
            triggers += [more] * (count - len(triggers))
        rows = self._rows(triggers, chunks, advice)
        self.clear()
        return rows

    def _chunks(self) -> list[int]:
        """What the bitmaps must cover: at least the chunk of the first PSN that is missing."""
        window = self._window
        hole = (window.cack + 1) >> CHUNK_BITS
        if not window.held:
            return [hole]
        above = window.chunks_above()
        if self._probe is not None:
            return above if hole in above else [hole, *above]
        return [hole, *(c for c in above if c in self._unreported and c != hole)]

    def _rows(self, triggers: list[Trigger], chunks: list[int], advice: Advice) -> Rows:
        window = self._window
        cack = window.cack
        wire_cack = cack & psns.MASK
        held = min(window.held, _MOST_HELD)
        units = (advice.received_bytes >> 8) & psns.MASK
        return np.array(
            [
                (
                    *(0, self._qp, self._dqp, wire_cack, _CONTROL, 0),  # path to flags
                    *(trigger.mark, trigger.probe, max(trigger.psn - cack, _FURTHEST_BACK), trigger.ev),
                    *(advice.port_state, wire_cack, self._mpr, chunk * CHUNK - cack, bitmap),
                    *(trigger.stamp, held, 0, advice.rcv_cwnd_pen, units),  # restore_cwnd: 0
                )
                for trigger, chunk, bitmap in zip(triggers, chunks, window.bitmaps(chunks), strict=True)
            ],
            SACK_OUT,
        )
