"""The way into the NIC: from the ring through the codec to the engine, payloads from the ring into memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from testbed.mrc.datapath.ports import PlaneTable
from testbed.mrc.datapath.recorder import Recorder
from testbed.mrc.datapath.ring import Burst, PacketRing
from testbed.mrc.datapath.stages import Stage, Stages
from testbed.mrc.engine import Engine
from testbed.mrc.memory import Memory
from testbed.mrc.rows import Rows
from testbed.mrc.wire.codec import Decoder, Received
from testbed.shared_rows import SharedRows

#: Packets decoded at once, at most: their headers then stay in the cache from the first look to the last.
BURST = 128
#: Packets of a round, at most, so that what they ask for is answered in time.
ROUND = 256


class Receiver:
    """Receives what the ring holds.

    Attributes:
        on_messages: called with MESSAGE rows that are complete, before they are acknowledged.
        dropped: packets that were not for the engine, by reason.
        received: packets taken from the ring.
        full: whether the last round ended with packets left.
    """

    def __init__(
        self,
        engine: Engine,
        ring: PacketRing,
        decoder: Decoder,
        planes: PlaneTable,
        memory: Memory,
        recording: tuple[Recorder, SharedRows] | None,
        stages: Stages,
    ) -> None:
        self.on_messages: Callable[[Rows], None] | None = None
        self.dropped: dict[str, int] = {}
        self.received = 0
        self.full = False
        self._engine = engine
        self._ring = ring
        self._decoder = decoder
        self._planes = planes
        self._memory = memory
        self._recording = recording
        self._stages = stages
        self._placed: npt.NDArray[np.bool_] = np.zeros(ring.frames, np.bool_)

    def step(self) -> int:
        """Take what has come so far, at most a round's worth; returns how many packets that were.

        What comes meanwhile is for the next round: under load there is always more, and those who sent what was taken
        wait for an answer.
        """
        left = self._ring.ready(ROUND + 1)
        self.full = left > ROUND
        left = count = min(left, ROUND)
        while left:
            burst = self._ring.take(min(BURST, left))
            self._stages.end(Stage.TAKE)
            if burst is None:
                break
            self._take(burst)
            self._ring.release(burst)
            self._stages.end(Stage.TAKE)
            left -= len(burst)
        self.received += count - left
        return count - left

    def _take(self, burst: Burst) -> None:
        planes = self._planes.of(burst.ifindex)
        received = self._decoder.decode(
            burst.first, burst.first + len(burst), burst.captured, burst.lengths, burst.t_ns, planes
        )
        if planes.max() == PlaneTable.NONE:
            self._keep_own_ports(received)
        for reason, number in received.dropped.items():
            if number:
                self._drop(reason, number)
        self._stages.end(Stage.DECODE)
        recording = self._recording
        if recording:
            self._placed[burst.first : burst.first + len(burst)] = False
        on_messages = self._messages if self.on_messages is not None else None
        self._engine.receive(received, self._place, time.monotonic_ns(), on_messages)
        self._stages.end(Stage.RECEIVE)
        if recording and len(received.writes):
            recording[1].append(recording[0].arrived(received.writes, self._placed[received.writes["frame"]]))
            self._stages.end(Stage.RECORD)

    def _keep_own_ports(self, received: Received) -> None:
        for kind in ("writes", "sacks", "nacks", "acks", "probes", "endpoints"):
            rows = getattr(received, kind)
            ours = rows["plane"] != PlaneTable.NONE
            if not ours.all():
                self._drop("other_port", len(rows) - int(ours.sum()))
                setattr(received, kind, rows[ours])

    def _place(self, rows: Rows) -> None:
        self._stages.end(Stage.RECEIVE)
        placed = self._memory.place(rows, self._ring.memory)
        if self._recording:
            self._placed[rows["frame"]] = placed
        self._stages.end(Stage.PLACE)

    def _messages(self, rows: Rows) -> None:
        self._stages.end(Stage.RECEIVE)
        if self.on_messages is not None:
            self.on_messages(rows)
        self._stages.end(Stage.MESSAGES)

    def _drop(self, reason: str, number: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + number
