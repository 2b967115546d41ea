"""What the engine has to send."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from testbed.mrc.rows import ACK_OUT, ENDPOINT_OUT, NACK_OUT, PROBE_OUT, SACK_OUT, WRITE_OUT, Rows


def joined(parts: list[Rows], dtype: np.dtype[np.void]) -> Rows:
    """The rows of all parts, in order."""
    if not parts:
        return np.zeros(0, dtype)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Rows by kind; ``path`` is a row of the NIC's path table.

    To be sent with nacks before sacks, so that why a packet is missing is known before that it is.
    """

    writes: Rows
    sacks: Rows
    nacks: Rows
    acks: Rows
    probes: Rows
    endpoints: Rows

    def __len__(self) -> int:
        return sum(map(len, (self.writes, self.sacks, self.nacks, self.acks, self.probes, self.endpoints)))


@dataclass(slots=True)
class Outbox:
    """Rows that wait to be sent, by kind."""

    writes: list[Rows] = field(default_factory=list)
    sacks: list[Rows] = field(default_factory=list)
    nacks: list[Rows] = field(default_factory=list)
    acks: list[Rows] = field(default_factory=list)
    probes: list[Rows] = field(default_factory=list)
    endpoints: list[Rows] = field(default_factory=list)

    def take(self) -> Outgoing:
        """Everything, once."""
        outgoing = Outgoing(
            joined(self.writes, WRITE_OUT),
            joined(self.sacks, SACK_OUT),
            joined(self.nacks, NACK_OUT),
            joined(self.acks, ACK_OUT),
            joined(self.probes, PROBE_OUT),
            joined(self.endpoints, ENDPOINT_OUT),
        )
        for parts in (self.writes, self.sacks, self.nacks, self.acks, self.probes, self.endpoints):
            parts.clear()
        return outgoing
