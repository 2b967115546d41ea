"""What the rig side and device drivers agree on, beside what every fabric offers: a leaf that both import."""

from __future__ import annotations

from typing import Protocol


class Change(Protocol):
    """An entry of the journal of device changes: how a change is undone is on disk, so the change may be made."""

    @property
    def node(self) -> str:
        """The device it is about."""
        ...

    def require_ours(self) -> None:
        """Raise LeaseLostError when this run does not hold the device's rig any more."""
        ...
