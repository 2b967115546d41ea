"""Where packets were lost: the fewest ports and devices that every lost path leads over, and no path that carries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from testbed.fabric.rig.check.findings import Aspect, Finding, NotChecked
from testbed.fabric.rig.check.judging import Judge
from testbed.fabric.rig.check.probing import SMALL, Probed
from testbed.lab import Lab

_SHOWN: Final = 20
#: What is wrong by these loses packets of any size.
_BROKEN: Final = (Aspect.REACHABLE, Aspect.PORT, Aspect.CABLE, Aspect.USIDS)


class Suspect(NamedTuple):
    """A port, in the direction out of it; or a device with all its ports, ``port`` empty."""

    node: str
    port: str


def crossed(probed: Probed) -> frozenset[Suspect]:
    """What a path leads over: the port by which it leaves each device, and each switch."""
    path = probed.path
    out = {Suspect(node, "") for node in path.nodes[1:-1]}
    for (here, _), link in zip(pairwise(path.nodes), path.links, strict=True):
        end = link.a if link.a.node == here else link.b
        out.add(Suspect(here, end.name))
    return frozenset(out)


def suspects(lost: Sequence[Probed], carried: Iterable[Probed]) -> list[tuple[Suspect, int]]:
    """The fewest that explain all that is lost, each with the count of lost paths over it; a port before a device.

    None of them is on a path that carries. What no such explains is left over: see :func:`findings`.
    """
    sound = frozenset[Suspect]().union(*(crossed(each) for each in carried))
    left = [crossed(each) - sound for each in lost]
    named: list[tuple[Suspect, int]] = []
    while True:
        counts: dict[Suspect, int] = {}
        for each in left:
            for suspect in each:
                counts[suspect] = counts.get(suspect, 0) + 1
        if not counts:
            return named
        worst = max(sorted(counts), key=lambda suspect: (counts[suspect], bool(suspect.port)))
        named.append((worst, counts[worst]))
        left = [each for each in left if worst not in each]


def explained(known: Iterable[Finding], aspects: Collection[Aspect], lab: Lab) -> frozenset[Suspect]:
    """What is known to be wrong already: at these ports and devices nobody needs to look for a reason."""
    out = set[Suspect]()
    for finding in known:
        if finding.aspect not in aspects:
            continue
        out.add(Suspect(finding.device, finding.port))
        for port in lab.topology.ports(finding.device):
            if port.name == finding.port:
                peer = lab.topology.peer(port)
                out.add(Suspect(peer.node, peer.name))
    return frozenset(out)


def findings(
    judge: Judge, probed: Sequence[Probed], lab: Lab, known: Sequence[Finding]
) -> Iterator[Finding | NotChecked]:
    """What is wrong with paths, by the port or device at fault; and what could not be told of them.

    ``known``: what devices have told of; a loss that it explains is not told again.
    """
    looked_at = [each for each in probed if not each.why]
    mtu = lab.link.mtu
    clear = _without(looked_at, explained(known, _BROKEN, lab))
    yield from _of_size(judge, clear, SMALL, Aspect.PATH, "a packet over every path")
    small = [each for each in clear if each.arrived[SMALL] == each.sent[SMALL]]
    narrow = _without(small, explained(known, (Aspect.MTU,), lab))
    yield from _of_size(judge, narrow, mtu, Aspect.MTU, f"a packet of {mtu} bytes over every path")
    reasons: dict[tuple[str, str], int] = {}
    for each in probed:
        if each.why:
            reasons[each.src, each.why] = reasons.get((each.src, each.why), 0) + 1
    for (src, why), count in reasons.items():
        yield NotChecked(src, "", Aspect.PATH, f"{count} paths from it: {why}")


def _without(probed: Sequence[Probed], reasons: frozenset[Suspect]) -> list[Probed]:
    """Those that arrived, and those that no known reason is on."""
    return [each for each in probed if each.arrived == each.sent or not crossed(each) & reasons]


def _of_size(judge: Judge, probed: Sequence[Probed], size: int, aspect: Aspect, expected: str) -> Iterator[Finding]:
    lost = [each for each in probed if not each.arrived[size]]
    carried = [each for each in probed if each.arrived[size]]
    named = frozenset[Suspect]()
    for suspect, count in suspects(lost, carried):
        named |= {suspect}
        over = sum(1 for each in probed if suspect in crossed(each))
        found = f"all {over} paths over it lost" if count == over else f"{count} lost paths lead over it, none carries"
        refused = {each.refused for each in lost if suspect in crossed(each)}
        if len(refused) == 1 and "" not in refused:
            found += f": its host says {refused.pop()}"
        yield judge.finding(suspect.node, suspect.port, aspect, found, expected)
    rest = [each for each in lost if not crossed(each) & named]
    partly = [each for each in carried if each.arrived[size] < each.sent[size]]
    for each in (*rest, *partly)[:_SHOWN]:
        way = " → ".join(each.path.nodes)
        found = f"{each.arrived[size]} of {each.sent[size]} packets of {size} bytes arrived over {way}"
        yield judge.finding(each.src, each.path.links[0].a.name, aspect, found, expected)
