"""The way out of the NIC: from the engine's rows through the codec into two sockets."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from testbed.mrc.datapath.outlet import Outlet
from testbed.mrc.datapath.plan import ADDRESS_BYTES, NicPlan, packed_address
from testbed.mrc.datapath.recorder import Recorder
from testbed.mrc.datapath.stages import Stage, Stages
from testbed.mrc.engine import Engine
from testbed.mrc.outgoing import Outgoing
from testbed.mrc.rows import Rows
from testbed.mrc.wire.codec import ControlEncoder, PathTable, WriteEncoder
from testbed.samples import SentArray
from testbed.shared_rows import SharedRows

#: WRITEs handed to the kernel at once, at most; windows usually allow fewer. A batch costs some 700 microseconds beside
#: what each packet costs: one of 256 takes a fifth less processor time a packet than four of 64. On veth links the
#: kernel carries each packet to its end within the call, some 13 microseconds: after so many, 3 to 4 ms, it is time to
#: look at what has come in meanwhile.
BATCH = 256
#: Control packets handed over at once.
CONTROL_BATCH = 128


def path_table(plan: NicPlan) -> PathTable:
    """The paths to all peers, one peer's after another's."""
    source = {port.plane: packed_address(port.address, port.name) for port in plan.ports}
    planes = [plane for peer in plan.peers for plane in peer.planes]
    inner = [packed_address(peer.address, peer.name) for peer in plan.peers for _ in peer.evs]
    return PathTable(
        _addresses(b"".join(source[plane] for plane in planes)),
        _addresses(bytes.fromhex("".join(peer.destinations for peer in plan.peers))),
        _addresses(packed_address(plan.address, plan.host) * len(planes)),
        _addresses(b"".join(inner)),
        np.array([ev for peer in plan.peers for ev in peer.evs], np.uint32),
        np.array(planes, np.uint8),
    )


def _addresses(packed: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(packed, np.uint8).reshape(-1, ADDRESS_BYTES)


class Sender:
    """Sends what the engine has.

    WRITEs and control packets have a socket each, so that a queue full of the former holds none of the latter up.
    While WRITEs wait for room no more are asked for; control packets that find none are lost on the way.

    Attributes:
        more: whether the engine may have more to send at once.
    """

    def __init__(
        self,
        engine: Engine,
        encoders: tuple[WriteEncoder, ControlEncoder],
        outlets: tuple[Outlet, Outlet],
        recording: tuple[Recorder, SharedRows] | None,
        stages: Stages,
    ) -> None:
        self.more = False
        self._engine = engine
        self._writes, self._control = encoders
        self._data_out, self._control_out = outlets
        self._recording = recording
        self._rows: SentArray | None = None
        self._stages = stages

    @property
    def blocked(self) -> bool:
        """Whether WRITEs wait for room in their socket."""
        return self._data_out.pending > 0

    def step(self) -> int:
        """Send one batch; returns of how many packets."""
        stages = self._stages
        if self._data_out.pending and self._data_out.flush():
            self._record()
        stages.end(Stage.SEND)
        most = 0 if self._data_out.pending else BATCH
        outgoing = self._engine.transmit(time.monotonic_ns(), most)
        stages.end(Stage.TRANSMIT)
        writes = outgoing.writes
        count = len(outgoing)
        if count > len(writes):
            self._send_control(outgoing)
        if len(writes):
            encoded = self._writes.encode(writes)
            stages.end(Stage.ENCODE)
            if self._recording:
                self._rows = self._recording[0].sent(writes)
                stages.end(Stage.RECORD)
            done = self._data_out.offer(encoded.messages.ctypes.data, encoded.count, self._rows)
            stages.end(Stage.SEND)
            if done:
                self._record()
        self.more = len(writes) >= BATCH
        return count

    def urgent(self) -> None:
        """Send the control packets that are due now, before a round receives and sends what may take milliseconds."""
        outgoing = self._engine.transmit(time.monotonic_ns(), 0)
        self._stages.end(Stage.TRANSMIT)
        if len(outgoing):
            self._send_control(outgoing)

    def _send_control(self, outgoing: Outgoing) -> None:
        kinds: tuple[Rows, ...] = (outgoing.acks, outgoing.nacks, outgoing.sacks, outgoing.endpoints, outgoing.probes)
        while any(map(len, kinds)):
            left, batch, rest = CONTROL_BATCH, [], []
            for rows in kinds:
                batch.append(rows[:left])
                rest.append(rows[left:])
                left -= len(batch[-1])
            encoded = self._control.encode(*batch)
            self._stages.end(Stage.ENCODE)
            if not self._control_out.offer(encoded.messages.ctypes.data, encoded.count):
                self._control_out.drop()
            self._stages.end(Stage.SEND)
            kinds = tuple(rest)

    def _record(self) -> None:
        if self._recording and self._rows is not None:
            self._recording[1].append(self._rows)
            self._rows = None
            self._stages.end(Stage.RECORD)
