"""The software NIC on a real kernel: one ring in, two sockets out, the engine in between, one loop around them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from testbed.kernel import inside, open_sender, open_silencer, precise_timers
from testbed.mrc.datapath.display import IDLE_NS, Display
from testbed.mrc.datapath.outlet import Outlet
from testbed.mrc.datapath.pacing import FULL, GATHER_NS, Pacing
from testbed.mrc.datapath.plan import ADDRESS_BYTES, NicPlan, packed_address
from testbed.mrc.datapath.ports import PlaneTable, PortWatch, check_mtu, indices
from testbed.mrc.datapath.receiver import BURST, Receiver
from testbed.mrc.datapath.recorder import Recorder
from testbed.mrc.datapath.ring import HEADERS, NET_AT, TRAILER, frame_bytes, open_ring
from testbed.mrc.datapath.sender import BATCH, CONTROL_BATCH, Sender, path_table
from testbed.mrc.datapath.shared import NicFiles
from testbed.mrc.datapath.stages import Stage, Stages
from testbed.mrc.datapath.waiting import Waiter
from testbed.mrc.engine import Engine
from testbed.mrc.memory import Access, Memory, MemoryRegion
from testbed.mrc.qp import QpAttributes, Region
from testbed.mrc.queuepair import QueuePair
from testbed.mrc.rows import Rows
from testbed.mrc.wire.codec import ControlEncoder, Decoder, Payloads, WriteEncoder
from testbed.mrc.wire.table import load

#: A round with so many packets is one of many: showing counters between any two of them would take 5% of the time.
_LOADED = 16
#: Beyond every 24-bit number.
_NO_QP = 1 << 24


def be_undisturbed() -> None:
    """Make this process fit for the loop: exact timers, and no garbage collection, which is a pause.

    To be called once everything is set up; the loop itself makes no cycles.
    """
    precise_timers()
    gc.collect()
    gc.freeze()
    gc.disable()


class SoftNic:
    """A software MRC NIC.

    One thread owns it and calls :meth:`run_once` in a loop; nothing happens in between.

    Args:
        plan: what it is made of.
        files: where it shows what it does; by default the descriptors of the plan.

    Attributes:
        plan: as given.
        engine: its queue pairs.
        stages: where its time went, if the plan wants that.

    Raises InfrastructureError where the kernel refuses what it needs, UsageError for a plan that cannot be.
    """

    def __init__(self, plan: NicPlan, files: NicFiles | None = None) -> None:
        self.plan = plan
        self.stages = Stages(on=plan.timing)
        self._memory, self._payloads = Memory(), Payloads()
        self.engine = Engine(plan.settings, plan.address, self._memory, seed=plan.seed)
        table, paths = load(), path_table(plan)
        if files is None and plan.shared is not None:
            files = NicFiles(plan.shared)
        self._recorder = Recorder(paths.ev, paths.plane)
        with ExitStack() as undo, inside(plan.netns_fd, plan.host):
            planes = indices(plan.ports, plan.host)
            check_mtu(plan.ports, HEADERS + plan.settings.pmtu + TRAILER, plan.host)
            self._ports = PortWatch(planes)
            undo.callback(self._ports.close)
            self._silencer = open_silencer(plan.host)
            undo.callback(self._silencer.close)
            outlets = Outlet(open_sender(plan.host)), Outlet(open_sender(plan.host))
            for outlet in outlets:
                undo.callback(outlet.socket.close)
            port = table.choices.udp_destination_port
            self._ring = open_ring(plan.host, port, plan.ring_frames, frame_bytes(plan.settings.pmtu))
            undo.callback(self._ring.close)
            self._waiter = Waiter(self._ring.fileno(), self._ports.fileno(), outlets[0].socket.fileno())
            self._add_peers()
            local = packed_address(plan.address, plan.host)
            self._decoder = Decoder(table, self._ring.memory, NET_AT, local, plan.settings.pmtu, BURST)
            self._control_encoder = ControlEncoder(table, paths, CONTROL_BATCH)
            encoders = WriteEncoder(table, paths, self._payloads, BATCH, plan.settings.pmtu), self._control_encoder
            sent = (self._recorder, files.sent) if files and files.sent else None
            self._sender = Sender(self.engine, encoders, outlets, sent, self.stages)
            arrivals = (self._recorder, files.arrivals) if files and files.arrivals else None
            self._receiver = Receiver(
                self.engine, self._ring, self._decoder, PlaneTable(planes), self._memory, arrivals, self.stages
            )
            self._display = Display(files, self.engine, self._receiver, outlets, self._ring, self.stages)
            self._undo = undo.pop_all()
        self._pacing = Pacing()
        self._changed = True  # since it was last shown
        self._loaded = False
        self._pressed = False
        self._numbers: list[int] = []  # of queue pairs, by their index
        self._peer_addresses: list[bytes] = []
        self._told(ports=True)
        now = time.monotonic_ns()
        for plane, up in self._ports.up.items():
            if not up:
                self.engine.port_changed(plane, up, now)

    def _add_peers(self) -> None:
        first_path = 0
        for peer in self.plan.peers:
            evs, planes = np.array(peer.evs, np.uint32), np.array(peer.planes, np.uint8)
            self.engine.add_peer(peer.name, peer.address, evs, planes, first_path)
            first_path += len(evs)

    # Memory and queue pairs

    def register(
        self,
        memory: int | npt.NDArray[np.uint8],
        access: Access = Access.LOCAL_WRITE | Access.REMOTE_WRITE,
        va: int | None = None,
    ) -> MemoryRegion:
        """Make memory known, to write to peers from and for them to write to.

        Args:
            memory: bytes to allocate, or a contiguous u8 array (n,).
            access: what peers may do.
            va: its address for peers; by default its address in this process.

        Raises UsageError for memory that cannot be a region.
        """
        data = np.zeros(memory, np.uint8) if isinstance(memory, int) else memory
        region = self._memory.register(data, access, va)
        try:
            self._payloads.register(data)
        except BaseException:
            self._memory.deregister(region)
            raise
        return region

    def deregister(self, region: MemoryRegion) -> None:
        """Close a region; no WRITE from it may be outstanding. Raises UsageError where it is not registered."""
        self._memory.deregister(region)
        self._payloads.deregister(int(region.data.ctypes.data))

    def create_qp(
        self, peer: str, *, psn: int | None = None, regions: tuple[MemoryRegion, ...] = (), flow: int = 0
    ) -> QueuePair:
        """A new queue pair to a peer; its ``attributes`` are for the other end.

        Args:
            peer: name of a peer of the plan.
            psn: of the first packet it sends; random where it is not given.
            regions: what the other end may write to.
            flow: number in samples of what it sends.

        Raises UsageError for an unknown peer.
        """
        told = tuple(Region(region.va, region.length, region.rkey) for region in regions)
        qp = self.engine.create_qp(peer, psn=psn, regions=told)
        self._recorder.sends(qp.index, flow, qp.attributes.psn)
        return qp

    def connect(self, qp: QueuePair, remote: QpAttributes, *, flow: int = 0) -> None:
        """Join a queue pair to the other end's; ``flow``: number in samples of what it receives.

        Raises UsageError where the two do not fit.
        """
        self.engine.connect(qp, remote, time.monotonic_ns())
        self._recorder.receives(qp.index, flow, remote.psn)
        self._name_queue_pair(qp.index, qp.attributes.qpn, packed_address(remote.address, qp.peer.name))

    def destroy_qp(self, qp: QueuePair) -> None:
        """End a queue pair; what is outstanding is flushed."""
        if qp.index < len(self._numbers):
            # A number that no packet can hold, for an index is never used again.
            self._name_queue_pair(qp.index, _NO_QP + qp.index, bytes(ADDRESS_BYTES))
        self.engine.destroy_qp(qp, time.monotonic_ns())

    def _name_queue_pair(self, index: int, number: int, peer: bytes) -> None:
        while len(self._numbers) <= index:
            self._numbers.append(_NO_QP + len(self._numbers))
            self._peer_addresses.append(bytes(ADDRESS_BYTES))
        self._numbers[index], self._peer_addresses[index] = number, peer
        numbers = np.array(self._numbers, np.uint32)
        peers = np.frombuffer(b"".join(self._peer_addresses), np.uint8).reshape(-1, ADDRESS_BYTES)
        self._decoder.set_queue_pairs(numbers, peers)
        self._control_encoder.set_queue_pairs(numbers)

    def post_write(
        self, qp: QueuePair, wr_id: int, source: int, length: int, va: int, rkey: int, imm: int | None = None
    ) -> None:
        """Write ``length`` bytes at address ``source``, in registered memory, to ``va`` at the peer.

        With ``imm`` it is a WRITE_IMM. Raises UsageError where the queue pair cannot take it.
        """
        self.engine.post_write(qp, wr_id, source, length, va, rkey, imm)
        self._sender.more = True

    def deny(self, evs: Iterable[int], denied: bool = True, peer: str | None = None) -> None:
        """Deny EVs, towards one peer or all, or allow them again: the word of a controller that knows the fabric.

        Raises UsageError for a peer that nobody is.
        """
        self.engine.deny(np.fromiter(evs, np.uint32), denied, time.monotonic_ns(), peer)

    def completions(self) -> Rows:
        """COMPLETION rows since the last call."""
        return self.engine.completions()

    def on_messages(self, handler: Callable[[Rows], None] | None) -> None:
        """Have MESSAGE rows that are complete given to ``handler`` before they are acknowledged."""
        self._receiver.on_messages = handler

    # The loop

    def wake_on(self, fd: int) -> None:
        """End every wait when this descriptor is readable, too; -1: no more."""
        self._waiter.wake_on(fd)

    def run_once(self, wait_ns: int) -> int:
        """Wait until there is something to do, at most so long, and do it: one round.

        Returns how many packets were received and sent.
        """
        self.stages.end(Stage.OUTSIDE)
        self._wait(wait_ns)
        received = self._receiver.step()
        self._pacing.round_ended(received)
        self._look_at_fill()
        sent = self._sender.step()
        self._changed |= received + sent > 0
        self._loaded = received + sent >= _LOADED
        now = time.monotonic_ns()
        if not self._display.due_in(now, idle=False):
            self.show()
        return received + sent

    def show(self) -> None:
        """Show counters and events to watchers now."""
        self._display.show(time.monotonic_ns())
        self.stages.end(Stage.RECORD)

    def counters(self) -> dict[str, int]:
        """Everything that is counted, by name."""
        return self._display.counters()

    @property
    def ports(self) -> dict[int, bool]:
        """Plane → whether its port is up, as last told."""
        return dict(self._ports.up)

    def close(self) -> None:
        """Show the last figures, and close every socket. Memory stays."""
        # In this order: whatever the ring no longer sees its kernel counts, as for a protocol that nobody speaks.
        self._silencer.close()
        self._ring.close()
        self._display.show(time.monotonic_ns())
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _wait(self, wait_ns: int) -> None:
        waiter, stages = self._waiter, self.stages
        busy = self._sender.more or self._receiver.full
        ready = self._ring.ready(FULL)
        if not busy and self._pacing.gather and ready < FULL:
            self._told(ports=waiter.wait(GATHER_NS, packets=False))
            stages.end(Stage.GATHER)
            ready = self._ring.ready(1)
        timeout = 0 if busy or ready else self._idle_ns(wait_ns)
        self._told(ports=waiter.wait(timeout, room=self._sender.blocked))
        stages.end(Stage.WAIT)

    def _idle_ns(self, wait_ns: int) -> int:
        """How long nothing needs to be done, unless something comes."""
        now = time.monotonic_ns()
        due = self.engine.next_due_ns()
        if due is not None:
            wait_ns = min(wait_ns, due - now)
        if wait_ns > 0 and self._changed:
            if self._loaded:
                # The next packets will not be long; if none come, the next round shows what there is.
                return max(min(wait_ns, IDLE_NS), 0)
            left = self._display.due_in(now, idle=True)
            if not left:
                self.show()
                self._changed = False
            wait_ns = min(wait_ns, left)
        return max(wait_ns, 0)

    def _told(self, *, ports: bool) -> None:
        if ports:
            now = time.monotonic_ns()
            for plane, up in self._ports.changes():
                # Peers send to a dead port until they are told: that waits for no round.
                self.engine.port_changed(plane, up, now, self._sender.urgent)
                self._changed = True

    def _look_at_fill(self) -> None:
        """Tell the engine how full the ring is; only a backlog can have filled it."""
        if self._receiver.full or self._pressed:
            fill = self._ring.fill()
            self.engine.pressure(fill)
            self._pressed = fill > 0
