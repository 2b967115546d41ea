"""What all ways have in common in which packets that were lost can be assigned to places that dropped packets."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

#: Beyond so many pairs of a loss and a place each is looked at by itself, without the others.
MOST_PAIRS = 4_000

_SOURCE, _SINK = -1, -2
#: Node → node → packets that can still be moved from the one to the other.
_Residual = dict[int, dict[int, int]]


def assignments(
    losses: Sequence[int], drops: Sequence[int], through: Sequence[Sequence[int]]
) -> Mapping[tuple[int, int], tuple[int, int]]:
    """(loss, place) → the fewest and the most packets of this loss that can have been dropped at this place.

    Args:
        losses: packets of each loss.
        drops: packets that each place dropped: those of losses, and others.
        through: the places at which a loss can have been.

    Where the places cannot have dropped all, nothing is certain: 0 and what both have.
    """
    pairs = [(loss, place) for loss, places in enumerate(through) for place in places]
    anything = {(loss, place): (0, min(losses[loss], drops[place])) for loss, place in pairs}
    if len(pairs) > MOST_PAIRS:
        return {
            (loss, place): (losses[loss], losses[loss]) if len(through[loss]) == 1 else anything[loss, place]
            for loss, place in pairs
        }
    # One more loss stands for what the places dropped beyond these, so that every place drops exactly what it did.
    spare = sum(drops) - sum(losses)
    if spare < 0:
        return anything
    first_place = len(losses) + 1
    residual: _Residual = {_SOURCE: {}, _SINK: {}}
    for loss, packets in enumerate([*losses, spare]):
        residual[_SOURCE][loss] = packets
        residual[loss] = dict.fromkeys(
            (first_place + place for place in _places(loss, losses, drops, through)), packets
        )
    for place, packets in enumerate(drops):
        residual.setdefault(first_place + place, {})[_SINK] = packets
    if _move(residual, _SOURCE, _SINK, sum(drops)) < sum(drops):
        return anything
    return {(loss, place): _bounds(residual, loss, first_place + place) for loss, place in pairs}


def _places(loss: int, losses: Sequence[int], drops: Sequence[int], through: Sequence[Sequence[int]]) -> Sequence[int]:
    return through[loss] if loss < len(losses) else range(len(drops))


def _bounds(residual: _Residual, loss: int, place: int) -> tuple[int, int]:
    """How far one amount can fall and rise while every sum stays: packets moved around cycles through it."""
    amount, room = residual[place].get(loss, 0), residual[loss][place]
    others = {node: dict(ways) for node, ways in residual.items() if node >= 0}
    for one, other in ((loss, place), (place, loss)):
        others[one].pop(other, None)
    for ways in others.values():
        ways.pop(_SOURCE, None)
        ways.pop(_SINK, None)
    fall = _move({node: dict(ways) for node, ways in others.items()}, loss, place, amount)
    rise = _move(others, place, loss, room)
    return amount - fall, amount + rise


def _move(residual: _Residual, start: int, goal: int, wanted: int) -> int:
    """Move up to so many packets from one node to another (Edmonds and Karp); returns how many."""
    moved = 0
    while moved < wanted:
        came = _search(residual, start, goal)
        if goal not in came:
            break
        way = [goal]
        while way[-1] != start:
            way.append(came[way[-1]])
        steps = list(zip(way[1:], way, strict=False))
        least = min(wanted - moved, *(residual[one][other] for one, other in steps))
        for one, other in steps:
            residual[one][other] -= least
            residual[other][one] = residual[other].get(one, 0) + least
        moved += least
    return moved


def _search(residual: _Residual, start: int, goal: int) -> Mapping[int, int]:
    came: dict[int, int] = {}
    queue = deque([start])
    while queue and goal not in came:
        at = queue.popleft()
        for following, room in residual[at].items():
            if room > 0 and following not in came and following != start:
                came[following] = at
                queue.append(following)
    return came
