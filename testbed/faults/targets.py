"""What faults happen to: names into nodes, links and ports, and into the places at which a rule has to sit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from testbed.errors import LabError, UsageError, nearest
from testbed.fabric.conditions import Only
from testbed.fabric.protocols import Fabric
from testbed.faults.parameters import read_ev
from testbed.lab import Link, Port


class Target(StrEnum):
    """Kinds of targets."""

    LINK = "link"  #: ``p0-t0-0~p0-t1-0``
    PORT = "port"  #: ``p0-t0-0:d0``
    HOST_PORT = "host port"  #: ``h0:p1``
    EV = "EV"  #: ``h0>h3:0x00b``
    SWITCH = "switch"
    HOST = "host"
    PROCESS = "process"  #: ``h0/iperf3``
    ADDRESS = "address"  #: ``fd8e:4a17:c2b6:0:2::1``, which several hosts share


EXAMPLES = {
    Target.LINK: "p0-t0-0~p0-t1-0",
    Target.PORT: "p0-t0-0:d0",
    Target.HOST_PORT: "h0:p1",
    Target.EV: "h0>h3:0x00b",
    Target.SWITCH: "p0-t1-0",
    Target.HOST: "h0",
    Target.PROCESS: "h0/iperf3",
    Target.ADDRESS: "fd8e:4a17:c2b6:0:2::1",
}

DIRECTIONS = ("up", "down", "both", "in", "out")


@dataclass(frozen=True)
class Place:
    """Where packets pass: a port, and whether they leave by it or enter by it."""

    port: Port
    outgoing: bool


def kind_of(name: str) -> Target:
    """What sort of target a name is, by its form."""
    if ">" in name:
        return Target.EV
    if "/" in name:
        return Target.PROCESS
    if "~" in name:
        return Target.LINK
    if name.count(":") > 1:
        # Beside a link, which has been told, no other name has two.
        return Target.ADDRESS
    if ":" in name:
        return Target.HOST_PORT if name.startswith("h") else Target.PORT
    return Target.HOST if name.startswith("h") else Target.SWITCH


def port(fabric: Fabric, name: str) -> Port:
    """The port of a name. Raises LabError with the nearest."""
    node, _, label = name.partition(":")
    found = Port(node, label)
    ports = fabric.lab.topology.ports(node)
    if found not in ports:
        names = [str(each) for each in ports]
        raise LabError(
            f"this lab has no port {name!r}", found=name, expected=", ".join(names), nearest=nearest(name, names)
        )
    return found


def places(fabric: Fabric, target: str, direction: str | None, *, egress: bool) -> list[Place]:
    """Where what happens to a target's packets in a direction is to sit.

    Args:
        fabric: where.
        target: a link, a port or an EV.
        direction: of a link ``up`` (away from the lower tier), ``down`` or ``both``; of a port ``in`` or ``out``.
        egress: whether it can only be done to packets that leave a port; else those of a link are met where they
            arrive, so that they have crossed it.

    Raises LabError for an unknown name, UsageError for a direction that the target does not have.
    """
    topology = fabric.lab.topology
    kind = kind_of(target)
    if kind is Target.EV:
        src, dst, ev = read_ev(target)
        first = fabric.addresses.path(src, dst, ev).links[0]
        _require(direction, ("up",), target)
        return [_on(first, up=True, egress=egress)]
    if kind is Target.LINK:
        _require(direction, ("both", "up", "down"), target)
        link = topology.link(target)
        ups = {"up": [True], "down": [False]}.get(direction or "both", [True, False])
        return [_on(link, up=up, egress=egress) for up in ups]
    _require(direction, ("in", "out"), target)
    found = port(fabric, target)
    if direction == "out":
        return [Place(found, outgoing=True)]
    return [Place(topology.peer(found), outgoing=True) if egress else Place(found, outgoing=False)]


def _on(link: Link, *, up: bool, egress: bool) -> Place:
    sender, receiver = (link.a, link.b) if up else (link.b, link.a)
    return Place(sender, outgoing=True) if egress else Place(receiver, outgoing=False)


def _require(direction: str | None, allowed: tuple[str, ...], target: str) -> None:
    if direction is not None and direction not in allowed:
        raise UsageError(f"{target} has no direction {direction!r}", found=direction, expected=", ".join(allowed))


def only(target: str, usid: str | None, ev: str | None) -> Only:
    """Which packets a fault is restricted to. Raises UsageError for two EVs."""
    if kind_of(target) is Target.EV:
        if ev is not None:
            raise UsageError(f"{target} is an EV already", found=f"ev={ev}", expected="no `ev` beside it")
        ev = target
    return Only(usid, None if ev is None else read_ev(ev))
