"""When the loop waits, and for how long: at once for a lone packet, in batches under load."""

from __future__ import annotations

#: A round of the loop costs much fixed work and a packet in it little (`make bench`, mrc, by stage): batches are what
#: makes a core carry a line. Under load the loop waits so long for more, a tenth of a scaled round trip.
GATHER_NS = 600_000
#: So many packets waiting are a good batch: no need to wait for more.
FULL = 48
#: A round with fewer packets than this is a conversation, whose next packet should not wait.
_BUSY = 4
#: Gathering begins after so many busy rounds in a row.
_ROUNDS = 2


class Pacing:
    """Looks at how many packets the last rounds received."""

    def __init__(self) -> None:
        self._busy_rounds = 0

    def round_ended(self, packets: int) -> None:
        """A round received so many packets."""
        self._busy_rounds = self._busy_rounds + 1 if packets >= _BUSY else 0

    @property
    def gather(self) -> bool:
        """Whether it is worth waiting for more packets before the next round."""
        return self._busy_rounds >= _ROUNDS
