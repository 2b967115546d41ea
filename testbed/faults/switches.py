"""Faults of links, ports, routes and switches."""

from __future__ import annotations

from testbed.errors import LabError, UsageError
from testbed.fabric.conditions import Drop, Misrouted, PortDown, RouteMissing, Rule, Running
from testbed.fabric.protocols import Fabric
from testbed.faults.kinds import Kind, Making, Telling, Values, holding
from testbed.faults.operations import Record, Wait
from testbed.faults.parameters import Parameter, Type
from testbed.faults.targets import Target, port
from testbed.lab import Tier

_CARRIER = Telling("carrier", "carrier lost", "carrier back")
_FLAP_PERIOD_S, _FLAP_DUTY, _TRANSCEIVER_S = 1.0, 0.5, 0.1


def _link_down(fabric: Fabric, target: str, _values: Values, _process: Running | None) -> Making:
    link = fabric.lab.topology.link(target)
    return holding(fabric, target, "link down", _CARRIER, [PortDown(link.b)], name=f"{target} down")[0]


def _flap(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
    link = fabric.lab.topology.link(target)
    period, rate = values.get("period"), values.get("per_minute")
    if period is not None and rate is not None:
        raise UsageError("a flap has a period or a rate", found="both", expected="one of period and per_minute")
    period = period or (60 / rate if rate else _FLAP_PERIOD_S)
    making, held = holding(fabric, target, "flap", _CARRIER, [PortDown(link.b)])
    down = values["duty"] * period
    operation = held.flapping(down, period - down, values.get("count"))
    return Making(making.name, making.kind, operation, making.kills)


def _nic_port_down(fabric: Fabric, target: str, _values: Values, _process: Running | None) -> Making:
    return holding(fabric, target, "NIC port down", _CARRIER, [PortDown(port(fabric, target))], name=f"{target} down")[
        0
    ]


def _transceiver_flap(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
    if fabric.lab.topology.tier(target) is not Tier.HOST:
        raise LabError(f"{target} is no host", found=target, expected="a host, such as h0")
    ports = [PortDown(each) for each in fabric.lab.topology.ports(target)]
    making, held = holding(fabric, target, "transceiver flap", _CARRIER, ports)
    return Making(making.name, making.kind, held.once(values["down"]), making.kills)


def _blackhole(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
    fabric.switch(target)
    missing = RouteMissing(target, values["usid"])
    telling = Telling("tables", "route missing", "route back")
    return holding(
        fabric, target, "black hole", telling, [missing], name=f"black hole of {values['usid']} on {target}"
    )[0]


def _misroute(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
    fabric.switch(target)
    name = values["port"] if ":" in values["port"] else f"{target}:{values['port']}"
    wrong = Misrouted(target, values["usid"], port(fabric, name))
    telling = Telling("tables", "route wrong", "route back")
    return holding(fabric, target, "misroute", telling, [wrong], name=f"misroute of {values['usid']} on {target}")[0]


def _frozen(fabric: Fabric, target: str, _values: Values, _process: Running | None) -> Making:
    fabric.switch(target)
    rules = [Rule(each, False, Drop(), everything=True) for each in fabric.lab.topology.ports(target)]
    telling = Telling("traffic", "frozen", "forwarding")
    return holding(fabric, target, "freeze", telling, rules)[0]


def _reboot(fabric: Fabric, target: str, values: Values, _process: Running | None) -> Making:
    return _rebooting(fabric, target, values["kind"], f"{values['kind']} reboot")


def _power_loss(fabric: Fabric, target: str, _values: Values, _process: Running | None) -> Making:
    return _rebooting(fabric, target, "power", "power loss")


def _rebooting(fabric: Fabric, target: str, kind: str, word: str) -> Making:
    switch = fabric.switch(target)

    def operation(record: Record, wait: Wait) -> None:
        switch.reboot(kind, record, stop=wait)

    name = f"{word} of {target}"
    if kind == "warm":
        # It forwards all the while.
        return Making(name, word, operation, hits="control lost", passes="control back")
    phases = fabric.lab.reboot.cold
    boots_s = phases.links_lost + phases.tables_empty if kind == "power" else 0.0
    return Making(name, word, operation, lambda path: target in path.nodes, heals_s=boots_s)


_USID = Parameter("usid", Type.NAME, "Whose uSID: a neighbour's, a host's port below it, or its own.", required=True)

KINDS = (
    Kind("link_down", "Take a link down.", (Target.LINK,), "carrier lost", "carrier back", "link-down", _link_down),
    Kind(
        "flap",
        "Take a link down and up, over and over.",
        (Target.LINK,),
        "carrier lost",
        "carrier back",
        "link-down",
        _flap,
        (
            Parameter("period", Type.TIME, "From one time down to the next; 1 s where no rate is given.", most=3600),
            Parameter("per_minute", Type.NUMBER, "How often a minute, in place of a period.", most=60_000),
            Parameter("duty", Type.SHARE, "The share of the time that it is down.", default=_FLAP_DUTY),
            Parameter("count", Type.COUNT, "How often; until it is healed where it is not given."),
        ),
    ),
    Kind(
        "nic_port_down",
        "Take a port of a NIC down, from the host's end.",
        (Target.HOST_PORT,),
        "carrier lost",
        "carrier back",
        "link-down",
        _nic_port_down,
    ),
    Kind(
        "transceiver_flap",
        "Take all ports of a NIC down at once, and up again.",
        (Target.HOST,),
        "carrier lost",
        "carrier back",
        "link-down",
        _transceiver_flap,
        (Parameter("down", Type.TIME, "How long they are down.", default=_TRANSCEIVER_S, most=3600),),
        lasts=False,
    ),
    Kind(
        "blackhole",
        "Take a switch's route for a uSID away.",
        (Target.SWITCH,),
        "route missing",
        "route back",
        "routes",
        _blackhole,
        (_USID,),
    ),
    Kind(
        "misroute",
        "Let a switch send what is for a uSID out by a wrong port.",
        (Target.SWITCH,),
        "route wrong",
        "route back",
        "routes",
        _misroute,
        (_USID, Parameter("port", Type.NAME, "The wrong port, such as t1-1.", required=True)),
    ),
    Kind(
        "frozen",
        "Let a switch forward nothing; its links and control stay up.",
        (Target.SWITCH,),
        "frozen",
        "forwarding",
        "gray-loss",
        _frozen,
    ),
    Kind(
        "reboot",
        "Take a switch through the phases of a reboot; a warm one goes on forwarding and takes no commands.",
        (Target.SWITCH,),
        "stopped",
        "forwarding",
        "reboot",
        _reboot,
        (Parameter("kind", Type.CHOICE, "Which.", default="cold", choices=("cold", "warm")),),
        lasts=False,
    ),
    Kind(
        "power_loss",
        "Take a switch's power away; it boots when it is healed.",
        (Target.SWITCH,),
        "stopped",
        "forwarding",
        "power",
        _power_loss,
    ),
)
