"""What counters counted between two readings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from testbed.record import CounterReading, Counts

#: Counters that are levels: they fall as well as rise.
_LEVELS = frozenset({(Counts.QUEUE, "waiting")})


class Changes:
    """Two readings of one fabric.

    Attributes:
        reset: ``node name counter`` of counters that fell, though they only ever rise: they began anew in between.
    """

    def __init__(self, before: CounterReading, after: CounterReading) -> None:
        start = {row[:4]: row.packets for row in before.rows}
        self.reset: list[str] = []
        self._of: dict[str, dict[tuple[Counts, str, str], int]] = {}
        for node, counts, name, counter, packets in after.rows:
            change = packets - start.get((node, counts, name, counter), 0)
            if change < 0 and (counts, counter) not in _LEVELS:
                self.reset.append(" ".join(filter(None, (node, name, counter))))
                change = packets
            self._of.setdefault(node, {})[counts, name, counter] = change

    def node(self, name: str) -> NodeChanges:
        """What one node counted; nothing where it was not read."""
        return NodeChanges(name, self._of.get(name, {}))


class NodeChanges:
    """What one node counted."""

    def __init__(self, name: str, values: Mapping[tuple[Counts, str, str], int]) -> None:
        self.name = name
        self._values = values

    @property
    def complete(self) -> bool:
        """Whether what enters and leaves the node was read."""
        return (Counts.IP, "", "InReceives") in self._values and any(kind is Counts.PORT for kind, _, _ in self._values)

    def ip(self, counter: str) -> int:
        """A counter of the whole node."""
        return self._values.get((Counts.IP, "", counter), 0)

    def value(self, counts: Counts, name: str, counter: str) -> int:
        """One counter; 0 where it was not read."""
        return self._values.get((counts, name, counter), 0)

    def total(self, counts: Counts, counter: str) -> int:
        """A counter, added up over all that have it."""
        return sum(packets for _, packets in self.each(counts, counter))

    def each(self, counts: Counts, counter: str = "") -> Iterator[tuple[str, int]]:
        """(name, packets) of everything that has a counter; of any counter where none is named."""
        for (kind, name, what), packets in self._values.items():
            if kind is counts and counter in ("", what):
                yield name, packets

    def rules(self) -> Iterator[tuple[str, str, int]]:
        """(name, counter, packets) of every rule."""
        for (kind, name, what), packets in self._values.items():
            if kind is Counts.RULE:
                yield name, what, packets
