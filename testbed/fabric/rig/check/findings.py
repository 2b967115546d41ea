"""What a check finds, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from testbed.errors import ExitCode


class Aspect(StrEnum):
    """What was looked at."""

    REACHABLE = "reachable"
    VERSION = "version"
    CLOCK = "clock"
    PORT = "port"
    SPEED = "speed"
    MTU = "mtu"
    CABLE = "cable"
    FEC = "fec"
    OPTICS = "optics"
    FLOW_CONTROL = "flow control"
    USIDS = "uSIDs"
    PATH = "path"


#: Without one of these nobody knows whether a rig works. The others not every device can tell.
NEEDED: Final = frozenset({Aspect.REACHABLE, Aspect.PORT, Aspect.CLOCK, Aspect.USIDS, Aspect.MTU, Aspect.PATH})


@dataclass(frozen=True, order=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        device: node of the fabric. port: its port of the fabric, empty where it is the whole device.
        aspect: what was looked at. found, expected: in words, with units.
        command: what shows it on the device, empty where its driver names none.
    """

    device: str
    port: str
    aspect: Aspect
    found: str
    expected: str
    command: str = ""


@dataclass(frozen=True, order=True)
class NotChecked:
    """Something that could not be looked at; ``why`` in the device's words. ``port`` empty for the whole device."""

    device: str
    port: str
    aspect: Aspect
    why: str


@dataclass(frozen=True)
class Drifted:
    """Something that is another than at the last good check, for good or ill."""

    device: str
    what: str
    was: str
    now: str


@dataclass(frozen=True)
class Report:
    """A check that has ended.

    Attributes:
        rig: name of the lab. began: seconds since 1970. took_s: seconds.
        devices: how many. paths, probed: how many there are, and over how many packets were sent.
        told: what devices said, ``NODE what`` → value: what a later check is compared with.
        drift: against the last good check, of ``since`` (seconds since 1970; None without one).
    """

    rig: str
    began: float
    took_s: float
    devices: int
    paths: int
    probed: int
    findings: tuple[Finding, ...]
    not_checked: tuple[NotChecked, ...]
    told: Mapping[str, str] = field(repr=False)
    drift: tuple[Drifted, ...] = ()
    since: float | None = None

    @property
    def good(self) -> bool:
        """Whether everything that has to be known is known and as it should be."""
        return self.exit_code is ExitCode.PASS

    @property
    def exit_code(self) -> ExitCode:
        """FAIL with findings; UNKNOWN where something that is needed could not be looked at."""
        if self.findings:
            return ExitCode.FAIL
        return ExitCode.UNKNOWN if any(each.aspect in NEEDED for each in self.not_checked) else ExitCode.PASS

    def as_json(self) -> dict[str, Any]:
        """For programs; times in seconds."""
        return {**asdict(self), "good": self.good}


def in_order(findings: Iterable[Finding], nodes: Iterable[str]) -> tuple[Finding, ...]:
    """Findings by device in the order of the topology, then by port; each once."""
    place = {node: number for number, node in enumerate(nodes)}
    return tuple(sorted(set(findings), key=lambda each: (place.get(each.device, len(place)), each)))
