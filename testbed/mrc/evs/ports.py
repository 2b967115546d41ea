"""Which planes can be used: a port may be down at this end, at the peer's, or at both."""

from __future__ import annotations

from testbed.mrc.rows import EvCause


class Ports:
    """What is known of the two ends of each plane; all are up until something else is said."""

    def __init__(self) -> None:
        self._down: dict[EvCause, set[int]] = {EvCause.LOCAL_PORT: set(), EvCause.PEER_PORT: set()}

    def usable(self, plane: int) -> bool:
        """Whether both ends of a plane are up."""
        return not any(plane in down for down in self._down.values())

    def set(self, plane: int, up: bool, cause: EvCause) -> bool:
        """Note the state of one end of a plane; whether that changed the plane's usability.

        Raises:
            ValueError: ``cause`` is neither LOCAL_PORT nor PEER_PORT.
        """
        if cause not in self._down:
            raise ValueError(f"a port's state has the cause LOCAL_PORT or PEER_PORT, not {cause!r}")
        before = self.usable(plane)
        (self._down[cause].discard if up else self._down[cause].add)(plane)
        return self.usable(plane) != before
