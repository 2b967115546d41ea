"""A fabric of numbers: packets walk along paths, end where the test says, and every counter knows of it."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from testbed.addressing import AddressPlan, Path
from testbed.lab import Lab
from testbed.record import CounterReading, CounterRow, Counts, HostTraffic

Fate = Literal[
    "arrives", "foreign", "queue", "dark", "hop limit", "purged", "vanishes", "stolen", "waits", "ring", "unheard"
]
_IP = ("InReceives", "OutForwDatagrams", "OutRequests", "InHdrErrors", "InUnknownProtos")
#: What can become of a packet at a switch and is counted there.
COUNTED: tuple[Fate, ...] = ("foreign", "queue", "dark", "hop limit")

LAB = Lab.parse(
    "name: numbers\nplanes: 2\nt0_per_plane: 2\nt1_per_plane: 2\nhosts_per_t0: 2\n"
    "link: {rate: 25Gbit/s, mtu: 1500}\ntime_scale: 1000\n"
)


class Numbers:
    """The counters of a lab's nodes, and of the sockets of one workload."""

    def __init__(self, lab: Lab = LAB) -> None:
        self.lab = lab
        self.addresses = AddressPlan(lab)
        self._counts: Counter[tuple[str, Counts, str, str]] = Counter()
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.ring_dropped: Counter[str] = Counter()
        self.refused: dict[str, Counter[tuple[int | None, int]]] = {}

    def add(self, node: str, counts: Counts, name: str, counter: str, packets: int = 1) -> None:
        """Count."""
        self._counts[node, counts, name, counter] += packets

    def reading(self, *, settled: bool = True) -> CounterReading:
        """All counters as they are now."""
        rows = []
        for node in self.lab.topology.nodes:
            keys = [(Counts.IP, "", name) for name in _IP]
            for port in self.lab.topology.ports(node):
                names = ("received", "sent", "not sent", "carrier losses")
                keys += [(Counts.PORT, port.name, name) for name in names]
                keys += [(Counts.QUEUE, port.name, name) for name in ("full", "waiting")]
            if node not in self.lab.topology.hosts:
                keys.append((Counts.USID, "", "foreign"))
            rows += [CounterRow(node, *key, self._counts[(node, *key)]) for key in keys]
        return CounterReading(0, tuple(rows), settled)

    def traffic(self) -> list[HostTraffic]:
        """What the workload counted."""
        return [
            HostTraffic(host, self.sent[host], self.refused.get(host, {}), self.received[host], self.ring_dropped[host])
            for host in self.lab.topology.hosts
        ]

    def refuse(self, host: str, plane: int, code: int) -> None:
        """A host's own kernel does not take a packet."""
        self.refused.setdefault(host, Counter())[plane, code] += 1

    def send(self, path: Path, fate: Fate = "arrives", at: int = 1) -> None:
        """Send one packet along a path; its fate meets it at node number ``at`` of the path, a switch."""
        source = path.nodes[0]
        self.sent[source] += 1
        self.add(source, Counts.IP, "", "OutRequests")
        for number, node in enumerate(path.nodes[:-1]):
            if number:
                self.add(node, Counts.IP, "", "InReceives")
            link = path.links[number]
            near, far = (link.a, link.b) if link.a.node == node else (link.b, link.a)
            if number and not self._goes_on(node, near.name, fate if number == at else "arrives"):
                return
            self.add(node, Counts.PORT, near.name, "sent")
            self.add(far.node, Counts.PORT, far.name, "received")
        self._at_host(path.nodes[-1], fate)

    def _goes_on(self, node: str, port: str, fate: Fate) -> bool:
        counted: dict[str, tuple[Counts, str, str]] = {
            "foreign": (Counts.USID, "", "foreign"),
            "queue": (Counts.QUEUE, port, "full"),
            "waits": (Counts.QUEUE, port, "waiting"),
            "dark": (Counts.PORT, port, "not sent"),
            "hop limit": (Counts.IP, "", "InHdrErrors"),
        }
        if fate in counted:
            self.add(node, *counted[fate])
        if fate not in ("foreign", "hop limit", "vanishes"):
            self.add(node, Counts.IP, "", "OutForwDatagrams")
        return fate not in counted and fate not in ("purged", "stolen", "vanishes")

    def _at_host(self, host: str, fate: Fate) -> None:
        self.add(host, Counts.IP, "", "InReceives")
        if fate == "ring":
            self.ring_dropped[host] += 1
        elif fate == "unheard":
            self.add(host, Counts.IP, "", "InUnknownProtos")
        else:
            self.received[host] += 1
