"""Conditions in force on a fabric of namespaces, and how they are lifted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from testbed.errors import InfrastructureError, UnhealedError
from testbed.fabric.conditions import (
    AddressMoved,
    Condition,
    Delayed,
    FaultCounter,
    Misrouted,
    PortDown,
    RateReduced,
    RouteMissing,
    Rule,
)
from testbed.fabric.netns import claims, messages, rules
from testbed.lab import Port
from testbed.record import CounterRow, Counts, now_ns

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric

Stamp = tuple[int, int]


class NetnsImposed:
    """What one fault holds; see :class:`testbed.fabric.protocols.Imposed`."""

    def __init__(self, fabric: NetnsFabric, fault: str, what: str, conditions: Sequence[Condition]) -> None:
        """Put all conditions in force, or none. Raises as the keeper and the kernel do."""
        self.id = fault
        self._fabric = fabric
        self._what = what
        self._held = {
            condition: claims.request_of(fabric, condition, fault, number)
            for number, condition in enumerate(conditions)
        }
        self._counted: dict[Port, int] = defaultdict(int)
        stamps = fabric.client.claim(fault, what, list(self._held.values()))
        self.stamps = dict(zip(self._held, stamps, strict=True))

    @property
    def held(self) -> Sequence[Condition]:
        """What is still in force, in the order in which it was imposed."""
        return list(self._held)

    def release(self, conditions: Sequence[Condition]) -> list[Stamp]:
        """Give conditions up, in this order, and do not look whether all is as planned then.

        Raises UnhealedError for the first that the kernel refused to undo.
        """
        ended = self._suspend([one for one in conditions if isinstance(one, Rule)])
        asked = [self._held.pop(condition).resource for condition in conditions]
        stamps = self._fabric.client.release(self.id, asked)
        return [ended.get(condition, stamp) for condition, stamp in zip(conditions, stamps, strict=True)]

    def lift(self, *conditions: Condition) -> Stamp:
        """Lift these, or all that are left, and wait until what they had changed is as planned; see the protocol."""
        ending = list(conditions) or list(reversed(self._held))
        if not ending:
            return now_ns(), now_ns()
        try:
            stamps = self.release(ending)
            self._fabric.wait_settled(self._touched(ending))
        except InfrastructureError as error:
            raise UnhealedError(f"{self._what} was not undone", found=str(error)) from error
        # Carrier is back when both ends have settled; all else at once.
        last = now_ns() if any(isinstance(one, PortDown) for one in ending) else stamps[-1][1]
        return stamps[0][0], last

    def counted(self) -> Mapping[Port, int]:
        """Packets that its rules have acted on so far, by port."""
        found = dict(self._counted)
        held = [one for one in self._held if isinstance(one, Rule)]
        for namespace, several in self._by_namespace(held).items():
            counts = rules.counts(self._fabric.client, namespace)
            for rule in several:
                found[rule.port] = found.get(rule.port, 0) + counts.get(self._table(rule), 0)
        return found

    def _suspend(self, ending: Sequence[Rule]) -> Mapping[Condition, Stamp]:
        """Take rules away from their ports, then read what they have counted: no packet goes uncounted in between."""
        stamps: dict[Condition, Stamp] = {}
        for namespace, several in self._by_namespace(ending).items():
            requests = [request for rule in several for request in rules.suspend(self._table(rule))]
            before = now_ns()
            self._fabric.client.netlink([(namespace, messages.join(requests))])
            stamps |= dict.fromkeys(several, (before, now_ns()))
        for number, (namespace, several) in enumerate(self._by_namespace(ending).items()):
            # One wait serves all: every rule has gone by now.
            counts = rules.counts(self._fabric.client, namespace, settled=number == 0)
            for rule in several:
                packets = counts.get(self._table(rule), 0)
                self._counted[rule.port] += packets
                self._fabric.over[rule.port, rule.outgoing, rule.counts] += packets
        return stamps

    def _by_namespace(self, several: Sequence[Rule]) -> Mapping[int, list[Rule]]:
        found: dict[int, list[Rule]] = defaultdict(list)
        for rule in several:
            found[self._fabric.plan.namespaces[rule.port.node]].append(rule)
        return found

    def _table(self, rule: Rule) -> str:
        return self._held[rule].resource.split()[2]

    def _touched(self, conditions: Sequence[Condition]) -> list[str]:
        nodes: list[str] = []
        for condition in conditions:
            if isinstance(condition, PortDown):
                nodes += [condition.port.node, self._fabric.lab.topology.peer(condition.port).node]
            elif isinstance(condition, RouteMissing | Misrouted):
                nodes.append(condition.switch)
            elif isinstance(condition, AddressMoved):
                nodes += self._fabric.lab.topology.hosts
            elif isinstance(condition, RateReduced | Delayed | Rule):
                nodes.append(condition.port.node)
        return list(dict.fromkeys(nodes))


def fault_counters(fabric: NetnsFabric) -> list[FaultCounter]:
    """See :meth:`testbed.fabric.protocols.Fabric.fault_counters`."""
    found: list[tuple[str, Port, str, str]] = []
    for claim in fabric.client.claims()[0]:
        kind, *told = claim.resource.split()
        if kind == "rule":
            found.append((claim.id, Port(*told[0].split(":")), told[1], told[2]))
    nodes = {port.node for _, port, _, _ in found}
    counts = {node: rules.counts(fabric.client, fabric.plan.namespaces[node]) for node in nodes}
    return [
        FaultCounter(fault, port, rules.is_outgoing(table), what, counts[port.node].get(table, 0))
        for fault, port, table, what in found
    ]


def acted(fabric: NetnsFabric) -> list[CounterRow]:
    """What the rules of faults have done at each port, those that are over included; for the ledger.

    Of faults of other processes only those in force.
    """
    total = Counter(fabric.over)
    for one in fault_counters(fabric):
        total[one.port, one.outgoing, one.what] += one.packets
    return [
        CounterRow(port.node, Counts.RULE, port.name, f"{what} {'leaving' if outgoing else 'arriving'}", packets)
        for (port, outgoing, what), packets in total.items()
    ]
