"""What a receiver asks of its senders by rcv_cwnd_pen, from how full its receive ring is."""

from __future__ import annotations

#: The largest penalty the seven bits hold: one packet a round trip.
MOST = 127


class BackPressure:
    """The penalty of the SACKs sent from now on. UEC leaves its making to the receiver; all values here are ours.

    0 below ``start``, then straight up to 127 at ``full``. Once above ``start`` it stays at least 1 until the ring has
    drained to ``release``: a penalty of 1 costs a sender almost nothing but stops it from growing, and 0 lets it
    return to the window it had before. Without that gap a ring at the threshold would let go with every other SACK.

    Args:
        start: share of the ring in use that begins a penalty. Half: the rest takes what is already in flight.
        full: share at which senders are asked for one packet a round trip.
        release: share at which a penalty ends.
    """

    __slots__ = ("_active", "_full", "_release", "_start")

    def __init__(self, start: float = 0.5, full: float = 0.9, release: float = 0.25) -> None:
        self._start = start
        self._full = full
        self._release = release
        self._active = False

    def penalty(self, fill: float) -> int:
        """0 to 127 for a ring of which the share ``fill``, 0 to 1, is in use."""
        if fill > self._start:
            self._active = True
        elif fill <= self._release:
            self._active = False
        if not self._active:
            return 0
        ramp = (fill - self._start) / (self._full - self._start)
        return max(1, min(MOST, round(MOST * ramp)))
