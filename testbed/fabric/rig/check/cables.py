"""The cable map against what devices hear from each other by LLDP (IEEE 802.1AB)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from testbed.fabric.abilities import LldpNeighbour
from testbed.fabric.devices import Driver
from testbed.fabric.rig.check.asking import Told
from testbed.fabric.rig.check.findings import Aspect, Finding, NotChecked
from testbed.fabric.rig.check.judging import Judge
from testbed.lab import Lab, Port


class Cables:
    """Who is at the other end of each cable.

    A neighbour is known by the MAC address it announces its port with, or else by its system name, which has to begin
    with the node's name, together with the device's own name of the port.
    """

    def __init__(self, lab: Lab, drivers: Mapping[str, Driver], told: Mapping[str, Told]) -> None:
        self._lab = lab
        self._drivers = drivers
        self._told = told
        self._by_mac = {
            state.mac.lower(): Port(node, port)
            for node, each in told.items()
            for port, state in (each.ports or {}).items()
        }

    def findings(self, judge: Judge) -> Iterator[Finding | NotChecked]:
        """Every cable that leads elsewhere, from both its ends, and what could not be told."""
        for node, each in self._told.items():
            if each.neighbours is None:
                continue
            for port in self._lab.topology.ports(node):
                yield from self._one(judge, port, each.neighbours.get(port.name, ()))

    def _one(self, judge: Judge, port: Port, heard: Sequence[LldpNeighbour]) -> Iterator[Finding | NotChecked]:
        peer = self._lab.topology.peer(port)
        state = (self._told[port.node].ports or {}).get(port.name)
        if not heard and state is not None and not state.carrier:
            return  # Of which the port itself tells.
        if not heard:
            if self._told[peer.node].neighbours is None:
                why = f"{peer.node} announces itself to nobody"
                yield NotChecked(port.node, port.name, Aspect.CABLE, why)
            else:
                yield judge.finding(port.node, port.name, Aspect.CABLE, "hears nobody", f"{peer} at the other end")
            return
        known = [self._known(each) for each in heard]
        if peer in known:
            return
        found = next((str(each) for each in known if each is not None), None)
        if found is None:
            names = ", ".join(f"{each.system or each.chassis} port {each.port}" for each in heard)
            why = f"hears {names}, and no device of the lab goes by that"
            yield NotChecked(port.node, port.name, Aspect.CABLE, why)
            return
        yield judge.finding(port.node, port.name, Aspect.CABLE, f"{found} at the other end", str(peer))

    def _known(self, heard: LldpNeighbour) -> Port | None:
        by_mac = self._by_mac.get(heard.port.lower())
        if by_mac is not None:
            return by_mac
        node = heard.system.partition(".")[0].lower()
        if node not in self._drivers:
            return None
        names = {name: port for port, name in self._drivers[node].device.ports.items()}
        port = names.get(heard.port) or names.get(heard.port_description)
        return None if port is None else Port(node, port)
