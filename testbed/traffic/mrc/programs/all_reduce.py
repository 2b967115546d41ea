"""Ring all-reduce of 64-bit integers: every rank ends up with the sum of all ranks' vectors, exactly.

A vector is ``ranks`` chunks; a message is one chunk. In the first ``ranks - 1`` steps of a round each rank adds
the chunk it receives to its own and passes the sum on; in the next ``ranks - 1`` the finished sums go around. Every
chunk received is compared with the sum that it must be, computed from the seeds of the ranks.

The rank before may be up to ``ranks - 1`` messages into the next round: it needs that many slots more.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from testbed.traffic.mrc.programs.base import Inbound, Outbound, Poster, right_immediate, right_place
from testbed.traffic.mrc.programs.times import Newest

Words = npt.NDArray[np.uint64]


class AllReduce:
    """One rank of a ring.

    Args:
        poster: takes messages.
        seed: of all ranks' vectors.
        message: bytes of a chunk, a multiple of 8.
        rank, ranks: place in the ring, and its length.
        outbound: the flow to the next rank.
        inbound: the flow from the one before.
        count: rounds; None: until stopped.
        vector: ``(ranks, message // 8)`` words, memory that the NIC may send from.
    """

    def __init__(
        self,
        poster: Poster,
        *,
        seed: int,
        message: int,
        rank: int,
        ranks: int,
        outbound: Outbound,
        inbound: Inbound,
        count: int | None,
        vector: Words,
    ) -> None:
        self._poster = poster
        self._message = message
        self._rank, self._ranks = rank, ranks
        self._out, self._in = outbound, inbound
        self._count = count
        self._vector = vector
        own = [_own(seed, one, ranks, message) for one in range(ranks)]
        self._own = own[rank]
        self._expected = [self._sum_at(own, step) for step in range(2 * (ranks - 1))]
        self._steps = 2 * (ranks - 1)
        self._step = 0
        self._round = 0
        self._sent_in_round = 0
        self._stopped = False
        self._began_ns = 0
        self._rounds_ns = Newest()
        self._rounds = 0
        self._waiting: deque[Words] = deque()
        self._begin(0)

    def _sum_at(self, own: list[Words], step: int) -> tuple[Words, int]:
        """What must be received in a step, less the round's share, and of how many ranks it is the sum."""
        chunk = self._received_chunk(step)
        last = self._ranks - 1
        members = range(self._ranks) if step >= last else range(self._rank - 1 - step, self._rank)
        total = np.zeros_like(own[0][0])
        for member in members:
            total += own[member % self._ranks][chunk]
        return total, len(members)

    def _received_chunk(self, step: int) -> int:
        reducing = step < self._ranks - 1
        return (self._rank - 1 - step if reducing else self._rank - (step - self._ranks + 1)) % self._ranks

    def _sent_chunk(self, step: int) -> int:
        reducing = step < self._ranks - 1
        return (self._rank - step if reducing else self._rank + 1 - (step - self._ranks + 1)) % self._ranks

    def _begin(self, now_ns: int) -> None:
        # Another sum in each round: what an earlier round left behind never passes for right.
        np.add(self._own, np.uint64(self._round), out=self._vector)
        self._step = self._sent_in_round = 0
        self._began_ns = now_ns

    def message(self, inbound: Inbound, number: int, va: int, octets: int, immediate: int | None) -> None:
        """Compare a chunk with the sum it must be, and take it into the vector."""
        slot = right_place(inbound, number, va, octets, self._message)
        if slot is None or not right_immediate(inbound, number, immediate, wanted=True):
            return
        of_round, step = divmod(number, self._steps)
        received = inbound.memory[slot].view(np.uint64)
        base, members = self._expected[step]
        expected = base + np.uint64(members * of_round)
        if not np.array_equal(received, expected):
            at = int(np.flatnonzero(received != expected)[0])
            inbound.complain(f"round {of_round} step {step}: word {at} is {received[at]}, not {expected[at]}")
        if number != self._round * self._steps + self._step + len(self._waiting):
            inbound.complain(f"round {of_round} step {step} came in round {self._round} step {self._step}")
        self._waiting.append(received)
        self._take()

    def _take(self) -> None:
        """Take what waits into the vector; the chunks of the next round wait until it is begun here."""
        while self._waiting and self._step < self._steps:
            received = self._waiting.popleft()
            chunk = self._vector[self._received_chunk(self._step)]
            if self._step < self._ranks - 1:
                chunk += received
            else:
                chunk[:] = received
            self._step += 1

    def step(self, now_ns: int) -> None:
        """Send the chunk of each step whose input has arrived; begin the next round when this one is over."""
        if self._step == self._steps and self._sent_in_round == self._steps and not self._out.outstanding:
            self._rounds_ns.append(now_ns - self._began_ns)
            self._rounds += 1
            self._round += 1
            self._begin(now_ns)
            self._take()
        while self._may_send():
            step = self._sent_in_round
            if step == 0:
                self._began_ns = now_ns
            number = self._round * self._steps + step
            self._sent_in_round += 1
            out = self._out
            out.started_ns[number] = now_ns
            out.posted += 1
            source = self._vector[self._sent_chunk(step)].view(np.uint8)
            self._poster.post(
                out.flow, source, out.slots[number % len(out.slots)], out.rkey, number & 0xFFFFFFFF, number
            )

    def _may_send(self) -> bool:
        if self._out.failed or self._sent_in_round >= self._steps or self._sent_in_round > self._step:
            return False
        return self._sent_in_round > 0 or not self._over

    @property
    def _over(self) -> bool:
        return self._stopped or self._round == self._count

    def stop(self) -> None:
        """Begin no further round."""
        self._stopped = True

    @property
    def finished(self) -> bool:
        """Whether nothing is outstanding, and no round goes on that has to: of a stopped ring the last may be cut."""
        done = self._round == self._count and self._sent_in_round == 0
        return not self._out.outstanding and (bool(self._out.failed) or self._stopped or done)

    def report(self) -> dict[str, Any]:
        """How many rounds were finished here, and how long the newest took, in nanoseconds."""
        return {"rounds": self._rounds, "rounds_ns": self._rounds_ns.to_list()}


def _own(seed: int, rank: int, ranks: int, message: int) -> Words:
    """The vector of a rank, ``(ranks, message // 8)``."""
    return np.random.default_rng([seed, rank]).integers(0, 1 << 63, (ranks, message // 8), np.uint64)
