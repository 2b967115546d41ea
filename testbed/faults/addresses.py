"""Faults of addresses that several hosts share."""

from __future__ import annotations

from ipaddress import IPv6Address

from testbed.fabric.conditions import AddressMoved, Running
from testbed.fabric.protocols import Fabric
from testbed.faults.kinds import Kind, Making, Telling, Values, holding
from testbed.faults.parameters import Parameter, Type
from testbed.faults.targets import Target


def _move(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
    host = values["host"]
    fabric.host(host)
    telling = Telling("tables", "moved", "moved back")
    moved = AddressMoved(IPv6Address(target), host)
    return holding(fabric, target, "move", telling, [moved], name=f"move of {target} to {host}")[0]


KINDS = (
    Kind(
        "move_address",
        "Let packets to an address that several hosts share go to another of them.",
        (Target.ADDRESS,),
        "moved",
        "moved back",
        "routes",
        _move,
        (Parameter("host", Type.NAME, "Which, such as h3.", required=True),),
    ),
)
