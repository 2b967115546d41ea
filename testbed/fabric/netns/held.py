"""What faults hold down at the moment: several at once compose, each healing what is its own and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Collection

from testbed.errors import UsageError
from testbed.fabric.netns.plan import FabricPlan
from testbed.lab import Link, Topology


class Held:
    """Links and switches that are down on purpose. Safe to use from several threads, one for each fault."""

    def __init__(self, topology: Topology, plan: FabricPlan) -> None:
        self._topology = topology
        self._plan = plan
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}
        self._switches: set[str] = set()
        self._coming_back: set[str] = set()

    def hold_link(self, link: Link) -> None:
        """A link goes down. Raises UsageError when it is down already."""
        with self._lock:
            if link.name in self._links:
                raise UsageError(f"{link.name} is down already", expected="one fault at a time on one link")
            self._links[link.name] = link

    def release_link(self, link: Link) -> bool:
        """A link is to come back. False when its upper end is rebooting: it then comes back with that switch."""
        with self._lock:
            self._links.pop(link.name, None)
            return link.b.node not in self._switches - self._coming_back

    def hold_switch(self, switch: str) -> None:
        """A switch goes down. Raises UsageError when it is down already."""
        with self._lock:
            if switch in self._switches:
                raise UsageError(f"{switch} is rebooting already", expected="one fault at a time on one switch")
            self._switches.add(switch)

    def bring_back(self, switch: str) -> Collection[int]:
        """A switch is to come back. Returns which of its interfaces are to stay down, for a link fault holds them."""
        with self._lock:
            self._coming_back.add(switch)
            return self._down_on(switch)

    def release_switch(self, switch: str) -> None:
        """A switch is back, or lost for good."""
        with self._lock:
            self._switches.discard(switch)
            self._coming_back.discard(switch)

    def down_on(self, switch: str) -> Collection[int]:
        """Interfaces of a switch that link faults hold down there."""
        with self._lock:
            return self._down_on(switch)

    def _down_on(self, switch: str) -> Collection[int]:
        return {self._plan.ports[link.b] for link in self._links.values() if link.b.node == switch}

    def disturbed_on(self, node: str, settling: str) -> Collection[int] | None:
        """Interfaces of a node that are not as planned, on purpose; None where nothing of it is.

        ``settling`` is a node that is to be as planned now, held or not.
        """
        with self._lock:
            switches = self._switches - {settling}
            if node in switches:
                return None
            return {
                self._plan.ports[port]
                for port in self._topology.ports(node)
                if self._topology.link_of(port).name in self._links or self._topology.peer(port).node in switches
            }
