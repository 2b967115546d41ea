"""A running fabric looked at again and again: what differs between two looks, as rates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from testbed.live.counting import Count
from testbed.live.telling import ask_all
from testbed.record import Counts

if TYPE_CHECKING:
    from testbed.fabric.netns.fabric import NetnsFabric


@dataclass
class Rates:
    """What went on between two looks, a second. None: no workload that tells it.

    Attributes:
        sent, received: packets of hosts' ports, of whatever kind.
        goodput: payload, bit/s. offered, lost, reordered: packets of workloads.
        loss, reordering: ratios of the same; None where nothing was sent or received.
        evs: state → entropy values of senders.
    """

    sent: float = 0.0
    received: float = 0.0
    goodput: float | None = None
    offered: float = 0.0
    arrived: float = 0.0
    lost: float = 0.0
    reordered: float = 0.0
    evs: dict[str, int] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """Packets lost over packets sent."""
        return self.lost / self.offered if self.offered else None

    @property
    def reordering(self) -> float | None:
        """Packets reordered over packets received."""
        return self.reordered / self.arrived if self.arrived else None

    def add(self, now: list[int], before: list[int], seconds: float) -> None:
        """Add what a workload counted in so many seconds."""
        per = [(one - other) / seconds for one, other in zip(now, before, strict=True)]
        self.goodput = (self.goodput or 0.0) + 8 * per[Count.BYTES]
        self.offered += per[Count.SENT]
        self.arrived += per[Count.RECEIVED]
        self.lost += per[Count.LOST]
        self.reordered += per[Count.REORDERED]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        told = {name: getattr(self, name) for name in ("sent", "received", "goodput", "loss", "reordering")}
        rounded = {name: None if value is None else round(value, 6) for name, value in told.items()}
        return rounded | ({"evs": self.evs} if self.evs else {})


@dataclass(frozen=True)
class Look:
    """A fabric at one moment.

    Attributes:
        t: time.time(). fabric, lab: names.
        planes: by number.
        flows: (workload, flow) → its rates, of those that run.
        faults: in force, a line each, as the fabric itself says. unhealed: what could not be put back.
        workloads: kind → how many run. ended: processes of workloads that ended though their workload runs.
    """

    t: float
    fabric: str
    lab: str
    planes: dict[int, Rates]
    flows: dict[tuple[str, str], Rates]
    faults: list[str]
    unhealed: list[str]
    workloads: dict[str, int]
    ended: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """For programs; ``sent`` and ``received`` are packets/s, ``goodput`` bit/s."""
        return {
            "t": round(self.t, 3),
            "fabric": self.fabric,
            "lab": self.lab,
            "planes": [{"plane": plane, **rates.as_json()} for plane, rates in self.planes.items()],
            "flows": [
                {"workload": workload, "flow": flow, **_of_flow(rates)}
                for (workload, flow), rates in self.flows.items()
            ],
            "faults": self.faults,
            "unhealed": self.unhealed,
            "workloads": self.workloads,
            "ended_processes": self.ended,
        }


def _of_flow(rates: Rates) -> dict[str, Any]:
    told = rates.as_json()
    return {"sent": round(rates.offered, 6), "received": round(rates.arrived, 6)} | {
        name: told[name] for name in ("goodput", "loss", "reordering")
    }


class Watching:
    """Looks at a fabric; the first look is taken when it is made."""

    def __init__(self, fabric: NetnsFabric) -> None:
        self._fabric = fabric
        topology = fabric.lab.topology
        self._plane_of = {
            (host, port.name): topology.link_of(port).plane for host in topology.hosts for port in topology.ports(host)
        }
        self._ports = self._read_ports()
        self._told = dict(self._tell())

    def look(self) -> Look:
        """What has gone on since the last look. Raises InfrastructureError when the fabric has ended."""
        fabric = self._fabric
        ports, told, status = self._read_ports(), dict(self._tell()), fabric.client.status()
        planes = {plane: Rates() for plane in range(fabric.lab.planes)}
        seconds = max(ports[0] - self._ports[0], 1e-3)
        for key, now in ports[1].items():
            plane, what = key
            setattr(planes[plane], what, (now - self._ports[1].get(key, now)) / seconds)
        flows: dict[tuple[str, str], Rates] = {}
        workloads: dict[str, int] = {}
        ended: dict[str, int] = {}
        for key_of, one in told.items():
            _workload(one, self._told.get(key_of), planes, flows)
            workloads[one["workload"]] = workloads.get(one["workload"], 0) + 1
            for role, runs, number in one["processes"]:
                if not runs and number:
                    ended[role] = ended.get(role, 0) + number
        self._ports, self._told = ports, told
        return Look(
            time.time(),
            fabric.name,
            fabric.lab.name,
            planes,
            flows,
            list(map(str, status["changes"])),
            list(map(str, status["unhealed"])),
            workloads,
            ended,
        )

    def _read_ports(self) -> tuple[float, dict[tuple[int, str], int]]:
        """When, and (plane, ``sent`` or ``received``) → packets of hosts' ports."""
        found: dict[tuple[int, str], int] = {}
        reading = self._fabric.counters()
        for row in reading.rows:
            plane = self._plane_of.get((row.node, row.name))
            if plane is not None and row.counts is Counts.PORT and row.counter in ("sent", "received"):
                found[plane, row.counter] = found.get((plane, row.counter), 0) + row.packets
        return reading.t_ns / 1e9, found

    def _tell(self) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
        """(process, number) → what it tells of a workload on this fabric."""
        for document in ask_all():
            for one in document["workloads"]:
                if one["fabric"] == self._fabric.name:
                    yield (document["pid"], one["number"]), {**one, "t": document["t"]}


def _workload(
    now: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    planes: dict[int, Rates],
    flows: dict[tuple[str, str], Rates],
) -> None:
    """Add what one workload did."""
    seconds = max(now["t"] - before["t"], 1e-3) if before is not None else 1.0
    for number, counts in enumerate(now["of_plane"]):
        # Of one that was not there before, all it did is of before: how long that took is not known.
        planes[number].add(counts, counts if before is None else before["of_plane"][number], seconds)
    for number, (flow, counts) in enumerate(zip(now["flows"], now["of_flow"], strict=True)):
        rates = flows.setdefault((now["workload"], flow), Rates())
        rates.add(counts, counts if before is None else before["of_flow"][number], seconds)
    for plane, state, count in now["evs"]:
        evs = planes[plane].evs
        evs[state] = evs.get(state, 0) + count
