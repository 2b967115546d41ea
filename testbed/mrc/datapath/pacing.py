"""When the loop waits, and for how long: at once for a lone packet, in batches under load."""

from __future__ import annotations

#: A round of the loop costs some 300 microseconds of fixed work, a packet in it some 5: batches of 8 and more are
#: what makes a core carry 40,000 packets/s. Under load the loop waits so long for more.
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
