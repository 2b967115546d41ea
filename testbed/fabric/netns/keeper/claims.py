"""What is changed on purpose, and how each thing goes back: kept where no client's death can reach it.

A resource is whatever one change at a time can be in force on: an end of a link, a route, a queue, a table of rules, a
process. For each the keeper holds what restores it (the base) and a stack of claims, each with what puts it in force;
the one on top is. So changes of one resource overlap and end in any order, whoever made them. When a client goes away
its claims are released. What the kernel then refuses stays listed as unhealed, and can be tried again.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from testbed.fabric.netns.keeper.children import Children
from testbed.fabric.netns.keeper.namespaces import Namespaces
from testbed.fabric.netns.keeper.tallies import Ended, Tallies, Tally


class Part(NamedTuple):
    """Netlink messages for a namespace; ``resource``: in a base, its claim is put in force instead while it has one."""

    resource: str | None
    namespace: int
    messages: bytes


class Action(NamedTuple):
    """What puts a claim in force, or restores a resource: netlink messages, then signals to processes (pid, number)."""

    parts: tuple[Part, ...] = ()
    signals: tuple[tuple[int, int], ...] = ()


class Wanted(NamedTuple):
    """A claim as it is asked for.

    ``alone``: refused while the resource is claimed; ``after``: put in force again whenever one of these resources has
    changed; ``tolerated``: errnos that are as good as success; ``closes``: a namespace in which nothing may be started
    meanwhile; ``tally``: what it counts, which is read when it ends.
    """

    resource: str
    action: Action
    base: Action
    alone: bool = False
    after: frozenset[str] = frozenset()
    tolerated: frozenset[int] = frozenset()
    closes: int | None = None
    tally: Tally | None = None


class Refused(NamedTuple):
    """A message the kernel refused: the resource it was for, namespace, number in its part, errno, its own words."""

    resource: str
    namespace: int
    number: int
    errno: int
    text: str

    def __str__(self) -> str:
        return f"errno {self.errno} {self.text}".strip()


class Claim(NamedTuple):
    """A claim that is held: by which client, under which fault's id, and what a person calls it."""

    owner: int
    id: str
    what: str
    order: int
    wanted: Wanted


class _Resource:
    # No dataclass: importing those takes a third of the keeper's start.
    def __init__(self, base: Action, tolerated: frozenset[int]) -> None:
        self.base = base
        self.tolerated = tolerated
        self.claims: list[Claim] = []


class Unhealed(NamedTuple):
    """A resource that could not be restored: what had changed it, why it was not, what would restore it."""

    what: str
    reason: str
    base: Action
    tolerated: frozenset[int]


Stamp = tuple[int, int]


class Claims:
    """The claims of all clients, and what could not be restored."""

    def __init__(self, namespaces: Namespaces, children: Children) -> None:
        self._namespaces = namespaces
        self._children = children
        self._resources: dict[str, _Resource] = {}
        self._unhealed: dict[str, Unhealed] = {}
        self._order = 0
        self._tallies = Tallies(namespaces)

    def claim(self, owner: int, number: str, what: str, wanted: Sequence[Wanted]) -> tuple[list[Stamp], list[Refused]]:
        """Put claims in force, in order: all, or none where one is refused.

        Returns CLOCK_REALTIME (ns) before and after each, and what was refused. Raises OSError (EBUSY) for a resource
        that is claimed by somebody else while it is to be claimed alone.
        """
        for each in wanted:
            holders = self._resources[each.resource].claims if each.resource in self._resources else []
            if any(claim.wanted.alone or each.alone for claim in holders):
                raise OSError(errno.EBUSY, f"{each.resource} is taken: {holders[-1].what}")
        stamps: list[Stamp] = []
        for each in wanted:
            self._order += 1
            resource = self._resources.setdefault(each.resource, _Resource(each.base, each.tolerated))
            resource.claims.append(Claim(owner, number, what, self._order, each))
            before = time.time_ns()
            refused = self._put_in_force(each.resource)
            stamps.append((before, time.time_ns()))
            if each.closes is not None:
                self._children.end_in(each.closes)
            if refused:
                self.release(owner, number)
                return stamps, refused
        return stamps, []

    def release(
        self, owner: int, number: str, resources: Sequence[str] | None = None
    ) -> tuple[list[Stamp], list[Refused], dict[str, int]]:
        """Give up claims of a fault, in this order, or all that it has, the last first.

        Returns CLOCK_REALTIME (ns) before and after each, what could not be restored, and resource → what was counted.
        """
        held = self._held(lambda claim: (claim.owner, claim.id) == (owner, number))
        if resources is None:
            resources = [claim.wanted.resource for claim in reversed(held)]
        ended = self._tally([claim for claim in held if claim.wanted.resource in resources])
        stamps, refused = [], []
        for resource in resources:
            before = time.time_ns()
            refused += self._release(owner, number, resource)
            stamps.append(ended[resource][:2] if resource in ended else (before, time.time_ns()))
        return stamps, refused, {resource: each.packets for resource, each in ended.items()}

    def end_of(self, owner: int) -> None:
        """Give up what a client that is gone had claimed, the last first."""
        held = self._held(lambda claim: claim.owner == owner)
        self._tally(held)
        for claim in reversed(held):
            self._release(owner, claim.id, claim.wanted.resource)

    def _tally(self, ending: Sequence[Claim]) -> dict[str, Ended]:
        """Read what claims that are about to end have counted; resource → of those that count."""
        counting = [(claim.wanted.resource, claim.wanted.tally) for claim in ending]
        known = {resource: tally for resource, tally in counting if tally is not None}
        return dict(zip(known, self._tallies.take(list(known.values())), strict=True))

    def retry(self) -> None:
        """Try again to restore what could not be."""
        for resource, failed in list(self._unhealed.items()):
            # Claimed again, it is restored with that claim's end.
            if resource not in self._resources:
                self._note(resource, failed.what, failed, self._restore(resource, failed.base, failed.tolerated))

    def closed(self, namespace: int) -> str | None:
        """What keeps processes from being started in a namespace; None where nothing does."""
        held = self._held(lambda claim: claim.wanted.closes == namespace)
        return held[-1].what if held else None

    def listing(self) -> list[Claim]:
        """All claims, the oldest first."""
        return self._held(lambda _: True)

    @property
    def tallies(self) -> dict[str, int]:
        """Label → what claims that are over have counted."""
        return dict(self._tallies.total)

    @property
    def unhealed(self) -> list[tuple[str, str, str]]:
        """(resource, what had changed it, why it could not be restored) of each that is not as it was."""
        return [(resource, failed.what, failed.reason) for resource, failed in self._unhealed.items()]

    def _held(self, wanted: Callable[[Claim], bool]) -> list[Claim]:
        found = [claim for resource in self._resources.values() for claim in resource.claims if wanted(claim)]
        return sorted(found, key=lambda claim: claim.order)

    def _release(self, owner: int, number: str, name: str) -> list[Refused]:
        resource = self._resources.get(name)
        mine = [] if resource is None else [c for c in resource.claims if (c.owner, c.id) == (owner, number)]
        if resource is None or not mine:
            return []
        was_in_force = resource.claims[-1] is mine[-1]
        resource.claims = [claim for claim in resource.claims if claim not in mine]
        if resource.claims:
            return self._put_in_force(name) if was_in_force else []
        del self._resources[name]
        refused = self._restore(name, resource.base, resource.tolerated)
        failed = Unhealed(mine[-1].what, "", resource.base, resource.tolerated)
        self._note(name, mine[-1].what, failed, refused)
        return refused + self._follow(name)

    def _note(self, name: str, what: str, failed: Unhealed, refused: Sequence[Refused]) -> None:
        self._unhealed.pop(name, None)
        if refused:
            self._unhealed[name] = failed._replace(what=what, reason="; ".join(map(str, refused)))

    def _put_in_force(self, name: str) -> list[Refused]:
        top = self._resources[name].claims[-1].wanted
        return self._execute(name, top.action, top.tolerated) + self._follow(name)

    def _follow(self, name: str) -> list[Refused]:
        """What was in force on others, and went with what has just changed."""
        refused = []
        for other, resource in list(self._resources.items()):
            top = resource.claims[-1].wanted
            if name in top.after:
                refused += self._execute(other, top.action, top.tolerated)
        return refused

    def _restore(self, name: str, base: Action, tolerated: frozenset[int]) -> list[Refused]:
        """Carry a base out, but where it covers what is claimed."""
        refused: list[Refused] = []
        for part in base.parts:
            if part.resource is not None and part.resource in self._resources:
                top = self._resources[part.resource].claims[-1].wanted
                refused += self._execute(part.resource, top.action, top.tolerated)
            else:
                refused += self._execute(name, Action((part,)), tolerated)
        return refused + self._execute(name, Action(signals=base.signals), tolerated)

    def _execute(self, name: str, action: Action, tolerated: frozenset[int]) -> list[Refused]:
        refused: list[Refused] = []
        for part in action.parts:
            try:
                found = self._namespaces.execute(part.namespace, part.messages)
            except (OSError, ValueError) as error:
                refused.append(Refused(name, part.namespace, 0, getattr(error, "errno", None) or 0, str(error)))
                continue
            refused += [
                Refused(name, part.namespace, entry.number, entry.errno, entry.text)
                for entry in found
                if entry.errno not in tolerated
            ]
        for pid, number in action.signals:
            try:
                self._children.signal(pid, number)
            except (OSError, OverflowError) as error:
                refused.append(Refused(name, -1, 0, getattr(error, "errno", None) or 0, str(error)))
        return refused
