"""How far a run may go on devices that others need, too: from traffic to cutting the power."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from testbed.errors import UnsupportedError, UsageError, nearest
from testbed.faults.kinds import Kind


class Level(StrEnum):
    """What may be done to devices; each includes those before it."""

    TRAFFIC = "traffic"
    LINK = "link"
    REBOOT = "reboot"
    POWER = "power"

    def includes(self, other: Level) -> bool:
        """Whether whoever may do this may do the other."""
        order = list(Level)
        return order.index(other) <= order.index(self)


#: On devices, where nobody says otherwise. Namespaces are the run's own: there everything is allowed.
DEFAULT: Final = Level.TRAFFIC

#: Capability that a fault needs → how far it goes.
_BY_NEED: Final[Mapping[str, Level]] = {"processes": Level.TRAFFIC, "reboot": Level.REBOOT, "power": Level.POWER}
#: Those that take more away than the capability they need says.
_BY_NAME: Final[Mapping[str, Level]] = {"frozen": Level.REBOOT}


class NotAllowedError(UnsupportedError):
    """Something goes further than this run may go."""


def level_of(kind: Kind) -> Level:
    """How far a fault goes. What changes a port, its queue or a table is the level of links."""
    return _BY_NAME.get(kind.name) or _BY_NEED.get(kind.needs, Level.LINK)


def parsed(text: str) -> Level:
    """A level by its name. Raises UsageError with the nearest."""
    try:
        return Level(text)
    except ValueError:
        raise UsageError(
            f"there is no level {text!r}",
            expected="one of: " + ", ".join(Level),
            nearest=nearest(text, list(Level)),
        ) from None


def require(wanted: Level, allowed: Level, what: str) -> None:
    """Raise NotAllowedError unless this is allowed. ``what`` goes that far."""
    if not allowed.includes(wanted):
        raise NotAllowedError(
            f"{what} goes further than this run may go on devices",
            found=f"it is of the level {wanted}, and the run may go up to {allowed}",
            remedy=f"--allow {wanted}",
        )
