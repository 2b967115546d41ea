"""What of a fabric is not as planned on purpose, read from the claims that its keeper holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from testbed.fabric.netns.batches import Held
from testbed.fabric.netns.plan import FabricPlan
from testbed.fabric.netns.state import NodeState
from testbed.lab import Port, Topology


@dataclass
class Disturbed:
    """Of one node: interfaces, shapers of interfaces, routes, tables, rules and addresses that claims have changed."""

    devices: set[int] = field(default_factory=set)
    queues: set[int] = field(default_factory=set)
    prefixes: set[tuple[bytes, int]] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)
    mark_rules: bool = False
    addresses: set[bytes] = field(default_factory=set)

    def beside(self, state: NodeState) -> NodeState:
        """All of a state that no claim has touched."""
        rest = state.beside(self.devices)
        rest.shapers = {entry for entry in rest.shapers if entry.ifindex not in self.queues}
        rest.routes = {entry for entry in rest.routes if (entry.prefix, entry.length) not in self.prefixes}
        rest.filters = {entry for entry in rest.filters if entry.rpartition(" ")[2] not in self.tables}
        rest.rules = set() if self.mark_rules else rest.rules
        rest.addresses = {entry for entry in rest.addresses if entry.address not in self.addresses}
        return rest


def by_node(claims: Iterable[Held], topology: Topology, plan: FabricPlan) -> Mapping[str, Disturbed]:
    """Node → what claims have changed of it; a port that is down takes the carrier of the other end along."""
    found: dict[str, Disturbed] = defaultdict(Disturbed)
    for claim in claims:
        kind, _, rest = claim.resource.partition(" ")
        name, _, more = rest.partition(" ")
        if kind == "route":
            network = IPv6Network(more)
            found[name].prefixes.add((network.network_address.packed, network.prefixlen))
        elif kind == "shared":
            for host in topology.hosts:
                found[host].prefixes.add((IPv6Address(name).packed, 128))
        elif kind == "address":
            found[name].addresses.add(IPv6Address(more).packed)
        elif kind == "rules":
            found[name].mark_rules = True
        elif kind == "marks":
            found[name].tables.add(more)
        elif kind in ("port", "queue", "delay", "rule"):
            node, _, label = name.partition(":")
            port = Port(node, label)
            if kind == "port":
                for end in (port, topology.peer(port)):
                    found[end.node].devices.add(plan.ports[end])
            elif kind == "rule":
                found[node].tables.add(more.partition(" ")[0])
            else:
                found[node].queues.add(plan.ports[port])
    return found
