"""The faults there are."""

from __future__ import annotations

from testbed.errors import UnsupportedError
from testbed.fabric.conditions import PortDown
from testbed.fabric.protocols import Fabric, Switch
from testbed.faults.operations import Holding
from testbed.faults.scope import FaultScope
from testbed.lab import Link


class Faults:
    """Faults on one fabric; each is a scope. What happened is kept in ``history``."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.history: list[FaultScope] = []

    @property
    def unhealed(self) -> list[str]:
        """Faults that could not be undone, with the reason."""
        return [f"{scope.name}: {scope.error}" for scope in self.history if scope.unhealed]

    def reboot(self, switch: Switch | str, kind: str = "cold") -> FaultScope:
        """A switch reboot. It takes as long as the lab says (``reboot:``); leaving the scope early cuts it short.

        Events: ``stopped``, ``carrier lost``, ``carrier back``, ``forwarding``. Raises LabError for an unknown switch,
        UnsupportedError for a fabric that cannot reboot.
        """
        self._require("reboot")
        target = self._fabric.switch(switch) if isinstance(switch, str) else switch
        return FaultScope(
            f"{kind} reboot of {target.name}",
            target.name,
            lambda record, wait: target.reboot(kind, record, stop=wait),
            dies="stopped",
            revives="forwarding",
            on_end=self.history.append,
        )

    def link_down(self, link: Link | str) -> FaultScope:
        """A link without carrier until the scope is left. Events: ``carrier lost``, ``carrier back``.

        Raises LabError for an unknown link, UnsupportedError for a fabric that cannot do it.
        """
        self._require("link-down")
        target = self._fabric.lab.topology.link(link) if isinstance(link, str) else link

        down = PortDown(target.b)
        holding = Holding(
            self._fabric,
            f"{target.name} down",
            [down],
            subject=target.name,
            lane="carrier",
            hits="carrier lost",
            passes="carrier back",
        )
        return FaultScope(
            f"{target.name} down",
            target.name,
            holding,
            kind="link down",
            dies="carrier lost",
            revives="carrier back",
            on_end=self.history.append,
        )

    def _require(self, capability: str) -> None:
        reason = self._fabric.capabilities.reason_against(capability)
        if reason is not None:
            raise UnsupportedError(f"this fabric cannot do {capability}", found=reason)
