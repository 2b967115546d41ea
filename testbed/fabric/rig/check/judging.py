"""What is wrong with what a device says of itself, held against its lab file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from testbed.addressing import AddressPlan
from testbed.fabric.abilities import Clock, Untold
from testbed.fabric.devices import Driver, PortState, UsidRoute
from testbed.fabric.rig.check.asking import Told, shown_by
from testbed.fabric.rig.check.findings import Aspect, Finding, NotChecked
from testbed.fabric.rig.plan import switch_routes
from testbed.lab import Lab
from testbed.lab.quantities import format_rate

#: A clock that is surely off by more cannot be meant to be right; how far it is off below that, SSH cannot tell.
MAX_CLOCK_OFFSET_S: Final = 0.1
#: Of a clock under PTP: what is left of a microsecond's delay is then 1%.
MAX_PTP_OFFSET_S: Final = 10e-6

#: Aspect → the capability it is asked by.
CAPABILITY: Final[Mapping[Aspect, str]] = {
    Aspect.REACHABLE: "version",
    Aspect.VERSION: "versions",
    Aspect.CLOCK: "clock",
    Aspect.PORT: "ports",
    Aspect.SPEED: "speed",
    Aspect.MTU: "ports",
    Aspect.CABLE: "lldp",
    Aspect.FEC: "fec",
    Aspect.OPTICS: "optics",
    Aspect.FLOW_CONTROL: "flow-control",
    Aspect.USIDS: "usids",
}


class Judge:
    """Judges one device after the other.

    Args:
        lab: what it is held against. drivers: node → its driver, for the commands that show what was found.
    """

    def __init__(self, lab: Lab, addresses: AddressPlan, drivers: Mapping[str, Driver]) -> None:
        self._lab = lab
        self._addresses = addresses
        self._drivers = drivers

    def finding(self, node: str, port: str, aspect: Aspect, found: str, expected: str) -> Finding:
        """A finding, with the command that shows it."""
        # Where packets are lost, the port's state is the next thing to look at, or the table of the whole device.
        capability = ("ports" if port else "usids") if aspect is Aspect.PATH else CAPABILITY[aspect]
        command = shown_by(self._drivers[node], capability, port)
        return Finding(node, port, aspect, found, expected, command)

    def findings(self, told: Told) -> Iterator[Finding]:
        """Everything wrong that the device itself tells of."""
        node = told.node
        if told.unreachable:
            device = self._drivers[node].device
            by_hand = f"ssh -p {device.port} {device.credential.user}@{device.address}"
            yield Finding(node, "", Aspect.REACHABLE, told.unreachable, "a login, and its version", by_hand)
            return
        for aspect, why in told.failed.items():
            yield self.finding(node, "", aspect, why, "an answer")
        if told.clock is not None:
            yield from self._clock(node, told.clock)
        for port, state in (told.ports or {}).items():
            yield from self._port(node, port, state)
        yield from self._usids(told)
        for port, flow in told.flow_control.items():
            if not isinstance(flow, Untold) and flow.off is False:
                on = [*(("PAUSE received",) if flow.rx_pause else ()), *(("PAUSE sent",) if flow.tx_pause else ())]
                on += [f"PFC of priority {priority}" for priority in flow.pfc or ()]
                yield self.finding(node, port, Aspect.FLOW_CONTROL, f"on: {', '.join(on)}", "off")
        yield from self._optics(told)
        for port, fec in told.fec.items():
            if not isinstance(fec, Untold) and fec.uncorrectable:
                found = f"{fec.uncorrectable} uncorrectable blocks"
                yield self.finding(node, port, Aspect.FEC, found, "none")

    def _clock(self, node: str, clock: Clock) -> Iterator[Finding]:
        off, sure = clock.offset_s, clock.uncertainty_s
        if abs(off) - sure > MAX_CLOCK_OFFSET_S:
            found = f"{off:+.3f} s ± {sure:.3f} s off this machine's"
            yield self.finding(node, "", Aspect.CLOCK, found, f"within {MAX_CLOCK_OFFSET_S:g} s")
        if clock.synchronised is False:
            yield self.finding(node, "", Aspect.CLOCK, "nothing disciplines it", "NTP or PTP")
        if clock.ptp_offset_s is not None and abs(clock.ptp_offset_s) > MAX_PTP_OFFSET_S:
            found = f"{clock.ptp_offset_s * 1e6:+.1f} µs off its PTP grandmaster"
            yield self.finding(node, "", Aspect.CLOCK, found, f"within {MAX_PTP_OFFSET_S * 1e6:g} µs")

    def _port(self, node: str, port: str, state: PortState) -> Iterator[Finding]:
        if not state.up:
            yield self.finding(node, port, Aspect.PORT, f"{state.name} is set down", "up")
        elif not state.carrier:
            yield self.finding(node, port, Aspect.PORT, f"{state.name} has no carrier", "a signal from the other end")
        if state.mtu < self._lab.link.mtu:
            yield self.finding(node, port, Aspect.MTU, f"{state.mtu} bytes", f"{self._lab.link.mtu} bytes or more")
        rate = self._lab.link.rate
        if rate is not None and state.speed is not None and state.carrier and state.speed != rate:
            yield self.finding(node, port, Aspect.SPEED, format_rate(state.speed), format_rate(rate))

    def _usids(self, told: Told) -> Iterator[Finding]:
        if told.usids is None:
            return
        node, device = told.node, self._drivers[told.node].device
        wanted = {route.prefix: route for route in switch_routes(self._lab, self._addresses, device)}
        here = {route.prefix: route for route in told.usids}
        names = {name: port for port, name in device.ports.items()}
        for prefix in sorted(wanted.keys() | here.keys()):
            right, there = wanted.get(prefix), here.get(prefix)
            if right != there:
                port = names.get(right.port if right else there.port if there else "", "")
                yield self.finding(node, port, Aspect.USIDS, _route(prefix, there), _route(prefix, right))

    def _optics(self, told: Told) -> Iterator[Finding]:
        for port, optics in told.optics.items():
            if isinstance(optics, Untold):
                continue
            dark = [str(lane) for lane, power in enumerate(optics.rx_dbm) if power == float("-inf")]
            if dark:
                found = f"no light received on lane {', '.join(dark)}"
                yield self.finding(told.node, port, Aspect.OPTICS, found, "light on every lane")
            if optics.alarms:
                yield self.finding(told.node, port, Aspect.OPTICS, f"alarm: {', '.join(optics.alarms)}", "no alarm")

    def links(self, told: Mapping[str, Told]) -> Iterator[Finding]:
        """What the two ends of a link do not agree in."""
        for link in self._lab.topology.links:
            a, b = (told[end.node].fec.get(end.name) for end in (link.a, link.b))
            if a is None or b is None or isinstance(a, Untold) or isinstance(b, Untold) or a.active == b.active:
                continue
            for end, own, other, peer in ((link.a, a, b, link.b), (link.b, b, a, link.a)):
                found, expected = (", ".join(each.active) or "none" for each in (own, other))
                yield self.finding(end.node, end.name, Aspect.FEC, found, f"as {peer} has it: {expected}")

    def not_checked(self, told: Iterable[Told]) -> Iterator[NotChecked]:
        """What devices do not tell. Ports of one device with one reason are one entry."""
        for each in told:
            for aspect, why in each.untold.items():
                yield NotChecked(each.node, "", aspect, why)
            for aspect, by_port in (
                (Aspect.OPTICS, each.optics),
                (Aspect.FEC, each.fec),
                (Aspect.FLOW_CONTROL, each.flow_control),
            ):
                yield from _untold_ports(each.node, aspect, by_port)
            unknown = [port for port, state in (each.ports or {}).items() if state.speed is None]
            if self._lab.link.rate is not None and unknown:
                yield NotChecked(each.node, ", ".join(unknown), Aspect.SPEED, "the device does not tell its speed")


def _untold_ports(node: str, aspect: Aspect, by_port: Mapping[str, object]) -> Iterator[NotChecked]:
    reasons: dict[str, list[str]] = {}
    for port, value in by_port.items():
        if isinstance(value, Untold):
            reasons.setdefault(value.why, []).append(port)
    for why, ports in reasons.items():
        yield NotChecked(node, "" if len(ports) == len(by_port) else ", ".join(ports), aspect, why)


def _route(prefix: str, route: UsidRoute | None) -> str:
    return f"no route {prefix}" if route is None else f"{prefix} {route.does} {route.port}".rstrip()
