"""Which flow and EV lost its packets where, as far as what is known admits one answer only.

Every packet lost was dropped at one of the places on its path that dropped any; a place dropped no more than it
counted. What all assignments of losses to places have in common is certain, and nothing else is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.addressing import Path
from testbed.ledger.assignment import assignments
from testbed.record import Drop


@dataclass(frozen=True)
class Lost:
    """Packets that one EV of one flow lost on the fabric; those that its own kernel refused are not among them."""

    flow: str
    ev: int
    path: Path
    packets: int


@dataclass(frozen=True)
class Attribution:
    """Where one EV's losses were.

    Attributes:
        flow, ev: whose.
        lost: how many packets.
        certain: place (hop, cause) → packets that it lost there at least.
        possible: the places, of all that dropped packets, at which the others can have been lost.
    """

    flow: str
    ev: int
    lost: int
    certain: Mapping[tuple[str, str], int]
    possible: tuple[tuple[str, str], ...]


def passes(path: Path, drop: Drop) -> bool:
    """Whether a packet on this path can have been dropped at this place."""
    if drop.node not in path.nodes:
        return False
    at = path.nodes.index(drop.node)
    if drop.leaving and (at == len(path.links) or _port(path, at, drop.node) not in drop.leaving):
        return False
    return not drop.arriving or (at > 0 and _port(path, at - 1, drop.node) in drop.arriving)


def _port(path: Path, link: int, node: str) -> str:
    """The name of a node's end of a link of the path."""
    ends = path.links[link]
    return ends.a.name if ends.a.node == node else ends.b.name


def attribute(lost: Sequence[Lost], drops: Sequence[Drop]) -> list[Attribution]:
    """Attribute losses to places. Where the places cannot have dropped them all, nothing is certain of any."""
    wanted = [one for one in lost if one.packets > 0]
    places = [drop for drop in drops if drop.packets > 0]
    through = [[number for number, drop in enumerate(places) if passes(one.path, drop)] for one in wanted]
    bounds = assignments([one.packets for one in wanted], [drop.packets for drop in places], through)
    out = []
    for number, one in enumerate(wanted):
        certain: dict[tuple[str, str], int] = {}
        possible: list[tuple[str, str]] = []
        for place in through[number]:
            key = places[place].hop, places[place].cause
            least, most = bounds[number, place]
            if least:
                certain[key] = certain.get(key, 0) + least
            if most > least:
                possible.append(key)
        out.append(Attribution(one.flow, one.ev, one.packets, certain, tuple(possible)))
    return out
