"""Each flow by itself: as many messages outstanding as it has slots, until stopped or until all are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbed.traffic.mrc.content import Content
from testbed.traffic.mrc.programs.base import Arrived, Inbound, Outbound, Poster, compare


class Stream:
    """Independent flows.

    Args:
        poster: takes messages.
        content: what they hold.
        outbound: the flows sent from here.
        count: messages of each; None: until stopped.
        immediate: send WRITE_IMMs.
        verify: compare what arrives.
    """

    def __init__(
        self,
        poster: Poster,
        content: Content,
        outbound: Sequence[Outbound],
        *,
        count: int | None,
        immediate: bool,
        verify: bool,
    ) -> None:
        self._poster = poster
        self._content = content
        self._outbound = outbound
        self._count = count
        self._immediate = immediate
        self._verify = verify
        self._stopped = False

    def message(self, inbound: Inbound, number: int, va: int, octets: int, immediate: int | None) -> None:
        """Compare it with what was sent."""
        arrived = Arrived(number, va, octets, immediate)
        compare(inbound, self._content, arrived, immediate=self._immediate, verify=self._verify)

    def step(self, now_ns: int) -> None:
        """Post to every free slot of each flow that still works."""
        if self._stopped:
            return
        for out in self._outbound:
            # Messages may complete in any order: a slot is free when the message that it held has.
            while not out.failed and self._more(out) and out.posted - len(out.slots) not in out.started_ns:
                number = out.posted
                at = self._content.offset(out.flow, number)
                source = self._content.table[at : at + self._content.size]
                out.started_ns[number] = now_ns
                out.posted += 1
                self._poster.post(
                    out.flow,
                    source,
                    out.slots[number % len(out.slots)],
                    out.rkey,
                    number & 0xFFFFFFFF if self._immediate else None,
                    number,
                )

    def _more(self, out: Outbound) -> bool:
        return self._count is None or out.posted < self._count

    def stop(self) -> None:
        """Post nothing more."""
        self._stopped = True

    @property
    def finished(self) -> bool:
        """Whether nothing is outstanding and nothing more will be."""
        return all(
            not out.outstanding and (self._stopped or bool(out.failed) or not self._more(out)) for out in self._outbound
        )

    def report(self) -> dict[str, Any]:
        """Nothing beside what the flows tell."""
        return {}
