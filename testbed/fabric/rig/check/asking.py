"""What one device says of itself: everything that its driver can ask, one thing after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from testbed.errors import BedError, UnsupportedError
from testbed.fabric.abilities import (
    Clock,
    ClockReading,
    Fec,
    FecReading,
    FlowControl,
    FlowControlReading,
    Lldp,
    LldpNeighbour,
    Optics,
    OpticsReading,
    Untold,
    Versions,
    refusal,
)
from testbed.fabric.devices import Driver, LinkControl, PortState, UsidRoute, UsidRoutes
from testbed.fabric.frames import ShowsCommands
from testbed.fabric.rig.check.findings import Aspect
from testbed.fabric.rig.together import told as in_words

A = TypeVar("A")
T = TypeVar("T")


@dataclass
class Told:
    """What a device said; what it did not say is in ``untold`` or, where it should have, in ``failed``.

    Attributes:
        unreachable: why nothing could be asked, empty where it could.
        untold: aspect → why its driver or the device cannot tell.
        failed: aspect → what went wrong when it was asked.
    """

    node: str
    unreachable: str = ""
    version: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    clock: Clock | None = None
    ports: Mapping[str, PortState] | None = None
    neighbours: Mapping[str, Sequence[LldpNeighbour]] | None = None
    optics: Mapping[str, Optics | Untold] = field(default_factory=dict)
    fec: Mapping[str, Fec | Untold] = field(default_factory=dict)
    flow_control: Mapping[str, FlowControl | Untold] = field(default_factory=dict)
    usids: Sequence[UsidRoute] | None = None
    untold: dict[Aspect, str] = field(default_factory=dict)
    failed: dict[Aspect, str] = field(default_factory=dict)


def ask(driver: Driver, block: str | None) -> Told:
    """Ask a device everything. ``block``: that of the uSIDs it has a table of, None for a host."""
    told = Told(driver.device.node)
    try:
        told.version = driver.version()
    except BedError as error:
        told.unreachable = in_words(error)
        return told
    asking = _Asking(driver, told)
    told.versions = asking.of(Aspect.VERSION, "versions", Versions, lambda able: able.versions()) or {}
    told.clock = asking.of(Aspect.CLOCK, "clock", ClockReading, lambda able: able.clock())
    told.ports = asking.of(Aspect.PORT, "ports", LinkControl, lambda able: able.ports())
    told.neighbours = asking.of(Aspect.CABLE, "lldp", Lldp, lambda able: able.lldp_neighbours())
    told.optics = asking.of(Aspect.OPTICS, "optics", OpticsReading, lambda able: able.optics()) or {}
    told.fec = asking.of(Aspect.FEC, "fec", FecReading, lambda able: able.fec()) or {}
    flow = asking.of(Aspect.FLOW_CONTROL, "flow-control", FlowControlReading, lambda able: able.flow_control())
    told.flow_control = flow or {}
    if block is not None:
        told.usids = asking.of(Aspect.USIDS, "usids", UsidRoutes, lambda able: able.usid_routes(block))
    return told


class _Asking:
    """Asks, and notes why there was no answer."""

    def __init__(self, driver: Driver, told: Told) -> None:
        self._driver = driver
        self._told = told

    def of(self, aspect: Aspect, capability: str, ability: type[A], ask: Callable[[A], T]) -> T | None:
        driver = self._driver
        if not isinstance(driver, ability):
            why = f"driver {driver.device.driver} has no {capability!r}"
            reason = refusal(driver, capability)
            self._told.untold[aspect] = f"{why}: {reason}" if reason else why
            return None
        try:
            return ask(driver)
        except UnsupportedError as error:
            # Its own remedy is the way to have it looked at the next time.
            self._told.untold[aspect] = f"{error.message}: {error.remedy}" if error.remedy else in_words(error)
        except BedError as error:
            self._told.failed[aspect] = in_words(error)
        return None


def shown_by(driver: Driver, capability: str, port: str = "") -> str:
    """The command by which a person sees what a driver sees; empty where the driver names none.

    ``port``: a port of the fabric, empty where it is about the whole device.
    """
    command = driver.shows.get(capability, "") if isinstance(driver, ShowsCommands) else ""
    if not port:
        return "" if "{port}" in command else command
    return command.replace("{port}", driver.device.ports.get(port, port))
