"""All-to-all in rounds: everybody sends to everybody; a round is over here when all of it is sent and received."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbed.traffic.mrc.content import Content
from testbed.traffic.mrc.programs.base import Arrived, Inbound, Outbound, Poster, compare
from testbed.traffic.mrc.programs.times import Newest


class AllToAll:
    """Rounds of one message on each flow.

    A peer may be a round ahead, never two: its next one needs this end's. Two slots at the receiver are enough.

    Args:
        poster: takes messages.
        content: what they hold.
        outbound, inbound: the flows that begin and end here.
        count: rounds; None: until stopped.
        immediate: send WRITE_IMMs.
        verify: compare what arrives.
    """

    def __init__(
        self,
        poster: Poster,
        content: Content,
        outbound: Sequence[Outbound],
        inbound: Sequence[Inbound],
        *,
        count: int | None,
        immediate: bool,
        verify: bool,
    ) -> None:
        self._poster = poster
        self._content = content
        self._outbound = outbound
        self._inbound = inbound
        self._count = count
        self._immediate = immediate
        self._verify = verify
        self._stopped = False
        self._began_ns = 0
        self._rounds_ns = Newest()
        self._rounds = 0
        self._posted = 0

    def message(self, inbound: Inbound, number: int, va: int, octets: int, immediate: int | None) -> None:
        """Compare it with what was sent."""
        arrived = Arrived(number, va, octets, immediate)
        compare(inbound, self._content, arrived, immediate=self._immediate, verify=self._verify)

    def step(self, now_ns: int) -> None:
        """Begin the next round when this one is over."""
        if not self._round_is_over():
            return
        if self._posted > self._rounds:
            self._rounds_ns.append(now_ns - self._began_ns)
            self._rounds += 1
        if self._stopped or self._posted == self._count or any(out.failed for out in self._outbound):
            return
        self._began_ns = now_ns
        number = self._posted
        self._posted += 1
        for out in self._outbound:
            at = self._content.offset(out.flow, number)
            source = self._content.table[at : at + self._content.size]
            out.started_ns[number] = now_ns
            out.posted += 1
            slot = out.slots[number % len(out.slots)]
            self._poster.post(out.flow, source, slot, out.rkey, number if self._immediate else None, number)

    def _round_is_over(self) -> bool:
        return all(not out.outstanding for out in self._outbound) and all(
            one.received >= self._posted for one in self._inbound
        )

    def stop(self) -> None:
        """Begin no further round."""
        self._stopped = True

    @property
    def finished(self) -> bool:
        """Whether every message posted has ended; peers may still wait for a round that this end will not begin."""
        over = self._stopped or self._posted == self._count or any(out.failed for out in self._outbound)
        return over and all(not out.outstanding for out in self._outbound)

    def report(self) -> dict[str, Any]:
        """How many rounds were finished, and how long the newest took, in nanoseconds."""
        return {"rounds": self._rounds, "rounds_ns": self._rounds_ns.to_list()}
