"""Random schedules: which faults come when, all drawn from a seed, within limits that leave the fabric alive."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from testbed.errors import UsageError, nearest
from testbed.fabric.protocols import Capabilities
from testbed.faults.schedule import Planned, Schedule
from testbed.faults.spec import KINDS, FaultSpec
from testbed.lab import Lab, Link, Tier

Draw = Callable[["_Pool"], tuple[str, dict[str, Any]]]

#: How often each kind comes, beside the others. Those left out have targets of their own (processes), take all planes
#: at once (transceiver_flap), or are asked for by name.
WEIGHTS: Mapping[str, float] = {
    "link_down": 4,
    "loss": 4,
    "nic_port_down": 2,
    "one_way_down": 2,
    "reboot": 2,
    "blackhole": 2,
    "misroute": 1,
    "frozen": 1,
    "flap": 1,
    "corruption": 1,
    "duplication": 1,
    "ecn_mark": 1,
    "rate": 1,
    "power_loss": 1,
    "delay": 1,
}
#: What takes a whole switch down, through phases of its own.
_DOWN = frozenset({"reboot", "power_loss"})


@dataclass(frozen=True)
class Limits:
    """What a random schedule keeps to.

    Attributes:
        at_once: faults in force at one time, at most.
        whole_planes: planes on which nothing is wrong, at any time, at least; 0: all may be hit at once.
        gap_s: mean time from one injection to the next.
        shortest_s, longest_s: how long a fault lasts.
    """

    at_once: int = 3
    whole_planes: int = 1
    gap_s: float = 0.5
    shortest_s: float = 0.05
    longest_s: float = 1.0

    def __post_init__(self) -> None:
        if self.at_once < 1 or self.whole_planes < 0 or self.gap_s <= 0:
            raise UsageError("these limits let nothing happen", found=str(self), expected="at_once 1, gap_s above 0")
        if not 0 < self.shortest_s <= self.longest_s:
            raise UsageError("faults last from the shortest to the longest time", found=str(self))


def nemesis(
    lab: Lab,
    *,
    seed: int,
    length_s: float,
    weights: Mapping[str, float] | None = None,
    limits: Limits | None = None,
    capabilities: Capabilities | None = None,
) -> Schedule:
    """A random schedule; the same arguments give the same one.

    Args:
        lab: whose links, ports and switches are hit.
        seed: of everything in it.
        length_s: how long it goes on. All faults are healed by then.
        weights: kind → how often it comes beside the others; by default :data:`WEIGHTS`.
        limits: see :class:`Limits`.
        capabilities: of the fabric it is for: kinds that this cannot do are left out.

    Raises UsageError for an unknown kind or one that has no random target, or where nothing is left to draw.
    """
    chosen, limits = _weights(weights, capabilities), limits or Limits()
    if lab.planes - limits.whole_planes < 1:
        raise UsageError(
            "every plane is to stay whole", found=f"{limits.whole_planes} of {lab.planes}", expected="fewer, or 0"
        )
    rng = np.random.default_rng([seed, 0x4E454D])
    names = list(chosen)
    shares = np.array([chosen[name] for name in names]) / sum(chosen.values())
    going: list[tuple[float, int, str]] = []  # (until, plane, the switch it takes down as a whole)
    events: list[Planned] = []
    now_s = 0.0
    while (now_s := round(now_s + float(rng.exponential(limits.gap_s)), 3)) < length_s:
        lasts_s = float(rng.uniform(limits.shortest_s, limits.longest_s))
        kind = names[int(rng.choice(len(names), p=shares))]
        while going and going[0][0] <= now_s:
            heapq.heappop(going)
        plane = _plane(lab, limits, {plane for _, plane, _ in going}, rng)
        target, parameters = _DRAWS[kind](_Pool(lab, plane, rng))
        down = target if kind in _DOWN else ""
        # A switch that is down cannot go down.
        if len(going) >= limits.at_once or (down and down in {other for _, _, other in going}):
            continue
        until_s = min(round(now_s + lasts_s, 3), length_s)
        heapq.heappush(going, (until_s, plane, down))
        events.append(Planned(now_s, round(until_s - now_s, 6), FaultSpec(kind, target, parameters).checked()))
    return Schedule(tuple(events), length_s, seed)


def _weights(given: Mapping[str, float] | None, capabilities: Capabilities | None) -> Mapping[str, float]:
    weights = WEIGHTS if given is None else given
    for name, weight in weights.items():
        if name not in _DRAWS:
            raise UsageError(
                f"{name} cannot be drawn" if name in KINDS else f"there is no fault {name!r}",
                found=name,
                expected=", ".join(_DRAWS),
                nearest=nearest(name, _DRAWS),
            )
        if weight < 0:
            raise UsageError(f"the weight of {name} is below 0", found=str(weight))
    left = {
        name: weight
        for name, weight in weights.items()
        if weight > 0 and (capabilities is None or capabilities.reason_against(KINDS[name].needs) is None)
    }
    if not left:
        raise UsageError("no kind of fault is left to draw", found=", ".join(weights) or "no weights")
    return left


def _plane(lab: Lab, limits: Limits, hit: set[int], rng: np.random.Generator) -> int:
    """A plane that may be hit: any, until so many are that only the whole ones are left; then one of those hit."""
    open_to = range(lab.planes) if len(hit) < lab.planes - limits.whole_planes else sorted(hit)
    return int(rng.choice(np.array(open_to)))


@dataclass(frozen=True)
class _Pool:
    """What there is to draw from on one plane."""

    lab: Lab
    plane: int
    rng: np.random.Generator

    def one(self, among: Sequence[Any]) -> Any:
        """One of these."""
        return among[int(self.rng.integers(len(among)))]

    def links(self) -> list[Link]:
        """All links of the plane."""
        return [link for link in self.lab.topology.links if link.plane == self.plane]

    def link(self) -> str:
        """A link of the plane."""
        return str(self.one(self.links()).name)

    def access(self) -> Link:
        """A link between a NIC and its T0."""
        topology = self.lab.topology
        found: Link = self.one([link for link in self.links() if topology.tier(link.a.node) is Tier.HOST])
        return found

    def switch(self) -> str:
        """A switch of the plane."""
        links = self.links()
        nodes = {port.node for link in links for port in (link.a, link.b)}
        return str(self.one([node for node in self.lab.topology.switches if node in nodes]))

    def neighbour(self, switch: str) -> tuple[str, str]:
        """What a switch has a route for, by name, and the port it leads to."""
        topology = self.lab.topology
        port = self.one(topology.ports(switch))
        peer = topology.peer(port)
        return (str(peer) if topology.tier(peer.node) is Tier.HOST else peer.node), port.name

    def share(self, least: float, most: float) -> float:
        """A share between two, its logarithm even between theirs."""
        return float(f"{np.exp(self.rng.uniform(np.log(least), np.log(most))):.3g}")


def _loss(pool: _Pool) -> tuple[str, dict[str, Any]]:
    direction = pool.one(("up", "down", "both"))
    which = {"share": pool.share(0.001, 0.5)} if pool.rng.random() < 0.7 else {"every": int(pool.rng.integers(2, 50))}
    return pool.link(), {"direction": direction, **which}


def _blackhole(pool: _Pool) -> tuple[str, dict[str, Any]]:
    switch = pool.switch()
    return switch, {"usid": pool.neighbour(switch)[0]}


def _misroute(pool: _Pool) -> tuple[str, dict[str, Any]]:
    switch = pool.switch()
    usid, right = pool.neighbour(switch)
    wrong = [port.name for port in pool.lab.topology.ports(switch) if port.name != right]
    return switch, {"usid": usid, "port": pool.one(wrong) if wrong else right}


def _some(least: float, most: float) -> Draw:
    return lambda pool: (pool.link(), {"share": pool.share(least, most)})


def _switch(pool: _Pool) -> tuple[str, dict[str, Any]]:
    return pool.switch(), {}


def _link(pool: _Pool) -> tuple[str, dict[str, Any]]:
    return pool.link(), {}


_DRAWS: Mapping[str, Draw] = {
    "link_down": _link,
    "loss": _loss,
    "nic_port_down": lambda pool: (str(pool.access().a), {}),
    "one_way_down": lambda pool: (pool.link(), {"direction": pool.one(("up", "down"))}),
    "reboot": _switch,
    "blackhole": _blackhole,
    "misroute": _misroute,
    "frozen": _switch,
    "flap": lambda pool: (pool.link(), {"period": round(float(pool.rng.uniform(0.05, 0.5)), 3)}),
    "corruption": _some(0.001, 0.1),
    "duplication": _some(0.001, 0.1),
    "ecn_mark": _some(0.01, 1.0),
    "rate": lambda pool: (pool.link(), {"rate": int(pool.rng.integers(1, 20)) * 1_000_000}),
    "power_loss": _switch,
    "delay": lambda pool: (pool.link(), {"delay": round(float(pool.rng.uniform(0.001, 0.02)), 4)}),
}
