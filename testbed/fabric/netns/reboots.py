"""Reboots of switches of a namespace fabric, as the conditions that hold in their phases."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from testbed.errors import InfrastructureError, UnhealedError, UnsupportedError, nearest
from testbed.fabric.conditions import ControlAway, PortDown, RouteMissing
from testbed.fabric.netns.claims import planned_route
from testbed.fabric.netns.imposed import NetnsImposed
from testbed.fabric.protocols import PhaseSink
from testbed.record import Event

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric

KINDS = ("cold", "power", "warm")


def carry_out(fabric: NetnsFabric, switch: str, kind: str, on_phase: PhaseSink, stop: Callable[[float], bool]) -> None:
    """See :meth:`testbed.fabric.protocols.Switch.reboot`."""
    if kind not in KINDS:
        raise UnsupportedError(
            f"a namespace switch cannot do a {kind!r} reboot",
            expected=", ".join(KINDS),
            nearest=nearest(kind, KINDS),
        )
    reason = fabric.capabilities.reason_against("power" if kind == "power" else "reboot")
    if reason is not None:
        raise UnsupportedError(f"{switch} cannot do a {kind} reboot", found=reason)
    if kind == "warm":
        _warm(fabric, switch, on_phase, stop)
    else:
        _Dark(fabric, switch, on_phase).live_through(kind, stop)


def _warm(fabric: NetnsFabric, switch: str, on_phase: PhaseSink, stop: Callable[[float], bool]) -> None:
    """Control is away for as long as all phases of a cold reboot take; nothing else is."""
    phases = fabric.lab.reboot.cold
    away = ControlAway(switch)
    held = fabric.impose(f"warm reboot of {switch}", [away])
    try:
        on_phase(Event.between("control", switch, "control lost", *held.stamps[away]))
        stop(phases.links_lost + phases.tables_empty)
    finally:
        stamps = held.lift()
    on_phase(Event.between("control", switch, "control back", *stamps))


class _Dark:
    """A switch that stops forwarding, loses its links, and comes back step by step."""

    def __init__(self, fabric: NetnsFabric, switch: str, on_phase: PhaseSink) -> None:
        self._fabric = fabric
        self._switch = switch
        self._on_phase = on_phase
        self._phases = fabric.lab.reboot.cold
        # Without its own uSID nothing passes a switch any more: as when it loses power, before the links go.
        self._own = RouteMissing(switch, switch)
        self._ports = [PortDown(port) for port in fabric.lab.topology.ports(switch)]
        self._control = [ControlAway(switch)]

    def live_through(self, kind: str, stop: Callable[[float], bool]) -> None:
        """From the first phase to the last; ``stop`` ends a cold one early, and gives the power back in the other."""
        what = f"reboot of {self._switch}" if kind == "cold" else f"power loss of {self._switch}"
        control = self._control if kind == "power" else []
        held = self._fabric.impose(what, [self._own, *self._ports, *control])
        try:
            lost = [held.stamps[port] for port in self._ports]
            self._on_phase(Event.between("traffic", self._switch, "stopped", *held.stamps[self._own]))
            if lost:
                self._on_phase(Event.between("carrier", self._switch, "carrier lost", lost[0][0], lost[-1][1]))
            if kind == "power":
                while not stop(3600.0):
                    pass
                self._boot(held)
            elif not stop(self._phases.links_lost):
                self._links_back(held)
                stop(self._phases.tables_empty)
        finally:
            self._come_back(held)

    def _boot(self, held: NetnsImposed) -> None:
        """With power back a switch boots, and nothing cuts that short."""
        time.sleep(self._phases.links_lost)  # Booting takes the time that the lab says.
        self._links_back(held)
        time.sleep(self._phases.tables_empty)  # As above.
        held.release(self._control)

    def _links_back(self, held: NetnsImposed) -> None:
        stamps = held.release(self._ports)
        if stamps:
            self._on_phase(Event.between("carrier", self._switch, "carrier back", stamps[0][0], stamps[-1][1]))

    def _come_back(self, held: NetnsImposed) -> None:
        """Give everything back; the own uSID, without which nothing passes, last, once all else has settled."""
        topology = self._fabric.lab.topology
        peers = sorted({topology.peer(port.port).node for port in self._ports})
        try:
            held.release([one for one in reversed(held.held) if one != self._own])
            self._fabric.wait_settled(
                [self._switch, *peers], besides=planned_route(self._fabric, self._switch, self._switch)
            )
            (forwarding,) = held.release([self._own])
            self._fabric.wait_settled([self._switch, *peers])
        except InfrastructureError as error:
            raise UnhealedError(f"{self._switch} did not come back from its reboot", found=str(error)) from error
        self._on_phase(Event.between("tables", self._switch, "forwarding", *forwarding))
