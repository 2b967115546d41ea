"""The prober's loop: a turn of one host after another, arrivals in between, outcomes in shared memory."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from testbed.kernel import inside, open_sender, open_silencer
from testbed.localise.focus import goes_to_focus
from testbed.localise.routes import Status
from testbed.traffic.prober.fates import Fates
from testbed.traffic.prober.packets import BATCH, Outbox
from testbed.traffic.prober.plan import PORT, ProberPlan
from testbed.traffic.prober.pressure import Disturbances, backlog_drops
from testbed.traffic.prober.shared import Count, OutcomeRing
from testbed.traffic.probes import wire
from testbed.traffic.probes.control import Control
from testbed.traffic.probes.receiver import Blocks
from testbed.traffic.probes.sockets import Ring, open_ring

#: 128 blocks of 60 probes: with one block every 8 ms an agent may be kept from running for a second.
_BLOCKS, _BLOCK_BYTES = 128, 1 << 14
_DRAIN_NS, _STATISTICS_NS = 10_000_000, 50_000_000
#: What a received probe may spend in its ring beyond the timer of a block.
_SLACK_NS = 10_000_000
_KEEP_NS = 10_000_000_000


class Orders(Control):
    """The agent's lifeline, with one command more: ``focus``, how many turns of eight, numbers of loops."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.focus: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self.turns = 0

    def _obey(self, words: list[bytes]) -> None:
        if words[:1] == [b"focus"]:
            self.turns, *loops = map(int, words[1:])
            self.focus = np.array(loops, np.int64)
        else:
            super()._obey(words)


class HostSockets:
    """Of one host: what it sends on, its ring, and what keeps its kernel from answering probes."""

    def __init__(self, name: str, retire_ms: int) -> None:
        self.sender: socket.socket = open_sender("prober agent")
        self._silencer = open_silencer("prober agent")
        self.ring: Ring = open_ring(name, _BLOCKS, _BLOCK_BYTES, retire_ms, PORT)
        self.blocks = Blocks(self.ring)


def open_hosts(plan: ProberPlan) -> list[HostSockets]:
    """The sockets of every host, each opened in its host's namespace."""
    found = []
    for host in plan.hosts:
        with inside(host.netns_fd, host.name):
            found.append(HostSockets(host.name, plan.retire_ms))
    return found


class Engine:
    """Probes until it is stopped."""

    def __init__(self, plan: ProberPlan, hosts: Sequence[HostSockets], outcomes: OutcomeRing, orders: Orders) -> None:
        self._plan = plan
        self._hosts = hosts
        self._outcomes = outcomes
        self._live = outcomes.live
        self._orders = orders
        self._outbox = Outbox(plan)
        self._begins = np.array(plan.begins)
        self._fates = Fates(np.array(plan.ends))
        self._turns = [[np.array(turn, np.int64) for turn in host] for host in plan.turns]
        self._disturbed = Disturbances(_KEEP_NS)
        self._backlog = backlog_drops()
        self._turn = self._focus_at = self._slot = 0
        self._drained_ns = self._statistics_ns = time.time_ns()
        self._cpu_ns = time.process_time_ns()

    def run(self) -> None:
        """Wait for the start, probe until stopped, then see the last probes home."""
        start = self._orders.wait_for_start()
        if start is None:
            return
        every_ns = self._plan.period_ns / len(self._hosts)
        due = float(start)
        while not self._orders.stopped:
            ahead = due - time.monotonic_ns()
            self._orders.wait(min(int(ahead), _DRAIN_NS))
            now = time.monotonic_ns()
            if now >= due:
                self._live[Count.BEHIND_NS_MAX] = max(self._live[Count.BEHIND_NS_MAX], int(now - due))
                self._take_turn()
                # What could not be sent in its time is left out: a burst would be no probe of a quiet fabric.
                due = due + every_ns if now - due < self._plan.period_ns else now + every_ns
            self._look()
        end = time.monotonic_ns() + self._plan.waiting_ns + self._late_ns + _STATISTICS_NS + _DRAIN_NS
        while time.monotonic_ns() < end:
            self._orders.wait(0)
            time.sleep(_DRAIN_NS / 1e9)  # The interval at which rings are looked at, until a deadline.
            self._look()

    @property
    def _late_ns(self) -> int:
        return 2 * self._plan.retire_ms * 1_000_000 + _SLACK_NS

    def _take_turn(self) -> None:
        """The next host's loops; while there is a focus, in so many turns out of some, as many of those instead."""
        self._slot += 1
        focus = self._orders.focus
        if len(focus) and goes_to_focus(self._slot, self._orders.turns):
            size = len(self._turns[0][0])
            loops = focus[(self._focus_at + np.arange(size)) % len(focus)]
            self._focus_at += size
            self._live[Count.FOCUSED] += size
            order = np.argsort(self._begins[loops], kind="stable")
            loops = loops[order]
            bounds = [0, *(np.flatnonzero(np.diff(self._begins[loops])) + 1).tolist(), size]
            for first, end in itertools.pairwise(bounds):
                self._send(loops[first:end])
            return
        host = self._turns[self._turn % len(self._turns)]
        self._send(host[self._turn // len(self._turns) % len(host)])
        self._turn += 1

    def _send(self, loops: npt.NDArray[np.int64]) -> None:
        """Send probes of one host."""
        for first in range(0, len(loops), BATCH):
            part = loops[first : first + BATCH]
            seq = self._fates.numbers(len(part))
            host = self._hosts[int(self._begins[part[0]])]
            t_ns, refused = self._outbox.send(host.sender.fileno(), part, seq)
            self._fates.sent(part, seq, t_ns, refused)
            self._live[Count.SENT] += len(part)
            self._live[Count.REFUSED] += int((refused != 0).sum())

    def _look(self) -> None:
        """Take in what has arrived; give up what has not come in time."""
        now = time.time_ns()
        if now - self._drained_ns < _DRAIN_NS:
            return
        for number, host in enumerate(self._hosts):
            for captured in host.blocks.handed_over():
                self._arrived(number, captured.heads, captured.packets)
        self._drained_ns = now
        if now - self._statistics_ns < _STATISTICS_NS:
            return
        rings = sum(host.ring.take_drops() for host in self._hosts)
        backlog = backlog_drops()
        self._disturbed.read(time.time_ns(), rings + backlog - self._backlog)
        self._live[Count.RING_DROPS] += rings
        self._live[Count.BACKLOG_DROPS] += backlog - self._backlog
        self._backlog, self._statistics_ns = backlog, now
        until = now - self._plan.waiting_ns - self._late_ns
        rows = self._fates.give_up(until, self._disturbed, self._plan.waiting_ns)
        lost = int((rows["status"] == Status.LOST).sum())
        self._live[Count.LOST] += lost
        self._live[Count.UNKNOWN] += len(rows) - lost
        if len(rows):
            self._outcomes.append(rows)
        self._live[Count.HORIZON_NS] = until
        self._live[Count.CPU_NS] = time.process_time_ns() - self._cpu_ns

    def _arrived(self, host: int, heads: npt.NDArray[np.void], packets: npt.NDArray[np.uint8]) -> None:
        decoded = wire.decode(packets, heads["captured"], heads["length"], PORT)
        ours = decoded.valid & (decoded.run_id == self._plan.run_id)
        t_ns = heads["seconds"].astype(np.int64) * 1_000_000_000 + heads["nanoseconds"]
        rows, misled = self._fates.arrived(host, decoded.seq[ours], t_ns[ours])
        late = int((rows["status"] == Status.LATE).sum())
        for count, amount in (
            (Count.FOREIGN, int((~ours).sum())),
            (Count.MISLED, misled),
            (Count.LATE, late),
            (Count.RECEIVED, len(rows) - late),
        ):
            if amount:
                self._live[count] += amount
        if len(rows):
            self._outcomes.append(rows)
