"""Conditions as claims on resources of the keeper: what puts each in force, and what restores the resource."""

from __future__ import annotations

import errno
import signal
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from testbed.errors import UsageError
from testbed.fabric.conditions import (
    AddressMoved,
    Condition,
    ControlAway,
    Delayed,
    Misrouted,
    Paused,
    PortDown,
    RateReduced,
    RouteMissing,
    Rule,
)
from testbed.fabric.netns import build, messages, queues, rules
from testbed.fabric.netns.batches import ClaimRequest, Part
from testbed.fabric.netns.foreign import ForeignProcess
from testbed.fabric.netns.processes import NetnsProcess
from testbed.fabric.netns.state import Action, NodeState, Route, Shaper
from testbed.lab import Port

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric

#: A route is gone already: with its interface, or by another claim.
GONE = frozenset({errno.ESRCH, errno.ENOENT})
#: A route cannot be there while its interface is down; it comes back with it.
DOWN = frozenset({errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH})
_LEAST_PACKETS = 16
_QUEUE_S = 0.01


def port_resource(port: Port) -> str:
    """Whether a port is up, and all that hangs on it."""
    return f"port {port}"


def queue_resource(port: Port) -> str:
    """What shapes a port."""
    return f"queue {port}"


def route_resource(node: str, route: Route) -> str:
    """A node's route to a prefix."""
    return f"route {node} {IPv6Address(route.prefix)}/{route.length}"


def request_of(fabric: NetnsFabric, condition: Condition, fault: str, number: int) -> ClaimRequest:
    """The claim that a condition is; ``number``: of the condition within its fault.

    Raises LabError for names the lab does not have, UsageError for what cannot be.
    """
    if isinstance(condition, PortDown):
        return _port_down(fabric, condition.port)
    if isinstance(condition, RouteMissing):
        return _route_missing(fabric, condition)
    if isinstance(condition, Misrouted):
        return _misrouted(fabric, condition)
    if isinstance(condition, RateReduced):
        return _rate(fabric, condition)
    if isinstance(condition, Delayed):
        return _delay(fabric, condition)
    if isinstance(condition, ControlAway):
        return ClaimRequest(f"control {condition.switch}", closes=fabric.plan.namespaces[condition.switch])
    if isinstance(condition, AddressMoved):
        return _moved(fabric, condition)
    if isinstance(condition, Paused):
        return _paused(condition)
    return _rule(fabric, condition, fault, number)


def _port_down(fabric: NetnsFabric, port: Port) -> ClaimRequest:
    namespace, index = _place(fabric, port)
    state = fabric.plan.nodes[port.node].of_device(index)

    def part(only: NodeState, resource: str | None = None) -> Part:
        return Part(namespace, build.state_messages(only, fabric.plan.burst), resource)

    return ClaimRequest(
        port_resource(port),
        do=[Part(namespace, [messages.link_down(index)])],
        base=[
            part(NodeState(devices=state.devices)),
            *(part(NodeState(shapers={shaper}), queue_resource(port)) for shaper in sorted(state.shapers)),
            part(NodeState(neighbours=state.neighbours, addresses=state.addresses)),
            # Those of ordinary IPv6 come and go with claims of their own.
            *(
                part(NodeState(routes={route}), route_resource(port.node, route))
                for route in sorted(state.routes)
                if route.action != Action.ENCAPSULATE
            ),
        ],
    )


def _place(fabric: NetnsFabric, port: Port) -> tuple[int, int]:
    fabric.lab.topology.link_of(port)
    return fabric.plan.namespaces[port.node], fabric.plan.ports[port]


def planned_route(fabric: NetnsFabric, switch: str, usid: str) -> Route:
    """A switch's planned route for a uSID. Raises LabError, UsageError where it has none."""
    fabric.switch(switch)
    value = fabric.addresses.usid(usid)
    prefix = fabric.addresses.block.network_address.packed[:4] + value.to_bytes(2, "big")
    known = {fabric.lab.topology.peer(port) for port in fabric.lab.topology.ports(switch)}
    names = {str(port) if ":" in usid else port.node for port in known} | {switch}
    for route in fabric.plan.nodes[switch].routes:
        if usid in names and route.prefix == prefix.ljust(16, b"\0"):
            return route
    raise UsageError(
        f"{switch} has no route for the uSID of {usid}",
        found=usid,
        expected="itself, a switch it has a link to, or a host's port below it",
    )


def _route_missing(fabric: NetnsFabric, condition: RouteMissing) -> ClaimRequest:
    route = planned_route(fabric, condition.switch, condition.usid)
    namespace = fabric.plan.namespaces[condition.switch]
    away = messages.prefix_delete(route)
    return ClaimRequest(
        route_resource(condition.switch, route),
        do=[Part(namespace, [away])],
        base=[Part(namespace, [away, messages.route(route)])],
        tolerated=GONE | DOWN,
    )


def _misrouted(fabric: NetnsFabric, condition: Misrouted) -> ClaimRequest:
    missing = _route_missing(fabric, RouteMissing(condition.switch, condition.usid))
    namespace, index = _place(fabric, condition.port)
    route = planned_route(fabric, condition.switch, condition.usid)
    if condition.port.node != condition.switch or index == route.ifindex or condition.usid == condition.switch:
        raise UsageError(
            f"{condition.switch} cannot send what is for {condition.usid} out by {condition.port} by mistake",
            expected=f"another port of {condition.switch} than the one that leads there, for a uSID not its own",
        )
    wrong = messages.route(route._replace(ifindex=index))
    return ClaimRequest(
        missing.resource,
        do=[*missing.do, Part(namespace, [wrong])],
        base=missing.base,
        after=[port_resource(condition.port)],
        tolerated=missing.tolerated,
    )


def _shaper(fabric: NetnsFabric, port: Port) -> Shaper | None:
    shapers = fabric.plan.nodes[port.node].of_device(fabric.plan.ports[port]).shapers
    return next(iter(shapers), None)


def _rate(fabric: NetnsFabric, condition: RateReduced) -> ClaimRequest:
    namespace, index = _place(fabric, condition.port)
    planned = _shaper(fabric, condition.port)
    octets = condition.bits_per_s // 8
    if octets < 1 or (planned is not None and octets >= planned.rate):
        most = "" if planned is None else f", below the {planned.rate * 8} of the link"
        raise UsageError(
            f"{condition.bits_per_s} bit/s is no reduced rate of {condition.port}", expected=f"8 bit/s or more{most}"
        )
    least = _LEAST_PACKETS * fabric.lab.link.mtu
    limit = max(least, round(octets * _QUEUE_S)) if planned is None else planned.limit
    back = queues.root_delete(index) if planned is None else messages.shaper(planned, fabric.plan.burst)
    return ClaimRequest(
        queue_resource(condition.port),
        do=[Part(namespace, [messages.shaper(Shaper(index, "tbf", octets, limit), fabric.plan.burst)])],
        base=[Part(namespace, [back])],
    )


def _delay(fabric: NetnsFabric, condition: Delayed) -> ClaimRequest:
    namespace, index = _place(fabric, condition.port)
    planned = _shaper(fabric, condition.port)
    do = queues.netem(index, condition.delay_s, condition.jitter_s, below_shaper=planned is not None)
    away = Part(namespace, [queues.root_delete(index)])
    if planned is None:
        # At the root, where a shaper would have to be as well.
        return ClaimRequest(queue_resource(condition.port), do=[Part(namespace, [do])], base=[away], alone=True)
    again = Part(namespace, [messages.shaper(planned, fabric.plan.burst)], queue_resource(condition.port))
    return ClaimRequest(f"delay {condition.port}", do=[Part(namespace, [do])], base=[away, again])


def _moved(fabric: NetnsFabric, condition: AddressMoved) -> ClaimRequest:
    claim_of = fabric.shared.get(str(condition.address))
    if claim_of is None:
        raise UsageError(
            f"no hosts share {condition.address}, or another process made them",
            found=", ".join(fabric.shared) or "no shared address of this process",
            expected="an address of `spread_paths`, in the process that called it and while it lasts",
        )
    return claim_of(condition.host)


def _paused(condition: Paused) -> ClaimRequest:
    process = condition.process
    if not isinstance(process, NetnsProcess | ForeignProcess) or process.poll() is not None:
        raise UsageError(f"{process.argv[0]} on {process.node} is not running", expected="a process that runs")
    return ClaimRequest(
        f"process {process.node} {process.pid}",
        do_signals=[(process.pid, int(signal.SIGSTOP))],
        base_signals=[(process.pid, int(signal.SIGCONT))],
    )


def _rule(fabric: NetnsFabric, rule: Rule, fault: str, number: int) -> ClaimRequest:
    namespace, index = _place(fabric, rule.port)
    table = rules.table_of(rule, fault, number)
    about = rules.packets_of(rule, fabric.addresses, fabric.lab.topology)
    requests = rules.install(rule, table, index, about, device=rule.port.name)
    return ClaimRequest(
        rule_resource(rule, table),
        do=[Part(namespace, requests)],
        base=[Part(namespace, rules.remove(table))],
        alone=True,
    )


def rule_resource(rule: Rule, table: str) -> str:
    """A rule's table; what else it says is for whoever reads the keeper's list of claims."""
    return f"rule {rule.port} {table} {rule.counts}"
