"""Which paths nothing gets along while a condition lasts; a condition that loses some packets kills none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from testbed.addressing import AddressPlan, Path
from testbed.fabric.conditions import ALL, AtRandom, Condition, Drop, Misrouted, PortDown, RouteMissing, Rule


def killing(conditions: Sequence[Condition], addresses: AddressPlan) -> Callable[[Path], bool] | None:
    """Tells whether a path is dead while all of these last; None where none kills any."""
    deadly = [one for one in conditions if _is_deadly(one)]
    return (lambda path: any(_kills(one, path, addresses) for one in deadly)) if deadly else None


def _is_deadly(condition: Condition) -> bool:
    if isinstance(condition, Rule):
        every = condition.which == ALL or (isinstance(condition.which, AtRandom) and condition.which.share >= 1)
        return isinstance(condition.effect, Drop) and every
    return isinstance(condition, PortDown | RouteMissing | Misrouted)


def _kills(condition: Condition, path: Path, addresses: AddressPlan) -> bool:
    if isinstance(condition, PortDown):
        return any(condition.port in (link.a, link.b) for link in path.links)
    if isinstance(condition, RouteMissing | Misrouted):
        if condition.switch not in path.nodes:
            return False
        # With the switch's own uSID gone nothing passes it, else what has the missing one next.
        after = _names(path)[path.nodes.index(condition.switch) :]
        return condition.usid == condition.switch or condition.usid == after[0]
    return isinstance(condition, Rule) and _meets(condition, path, addresses)


def _names(path: Path) -> list[str]:
    """Whose uSID each of a path's is: the switches', then the host port's."""
    return [*path.nodes[1:-1], f"{path.nodes[-1]}:p{path.plane}"]


def _meets(rule: Rule, path: Path, addresses: AddressPlan) -> bool:
    """Whether packets that follow a path come by a rule's port in its direction, and are those that it is about."""
    for place, link in enumerate(path.links):
        near, far = (link.a, link.b) if link.a.node == path.nodes[place] else (link.b, link.a)
        if (near if rule.outgoing else far) != rule.port:
            continue
        # Every switch passed has shifted its own uSID out.
        if rule.only.usid is not None and rule.only.usid not in _names(path)[place:]:
            return False
        return rule.only.ev is None or addresses.path(*rule.only.ev) == path
    return False
