"""Reading the `absent` list of a lab: planes, switches, hosts, ports and links that the fabric does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable

from testbed.errors import LabError
from testbed.lab.problems import SHOWN
from testbed.lab.shape import Absence, Shape, Tier

_PLANE = re.compile(r"p(0|[1-9])")


def parse_absent(shape: Shape, names: Iterable[str]) -> tuple[Absence, list[tuple[int, LabError]]]:
    """What a list of names leaves out of a shape.

    Planes ``p5``, switches ``p3-t1-1``, hosts ``h3``, links ``p0-t0-0~p0-t1-0``, and ports ``h2:p7`` or
    ``p0-t0-0:t1-0``, which stand for their link.

    Returns:
        the absence, and for each name that is none of these its position and the error.
    """
    planes: set[int] = set()
    hosts: set[int] = set()
    switches: dict[Tier, set[tuple[int, int]]] = {Tier.T0: set(), Tier.T1: set()}
    accesses: set[tuple[int, int]] = set()
    uplinks: set[tuple[int, int, int]] = set()
    errors: list[tuple[int, LabError]] = []
    for position, name in enumerate(names):
        node = shape.parse_node(name)
        link = shape.parse_link(name)
        plane = _PLANE.fullmatch(name)
        if node is not None and node.plane is None:
            hosts.add(node.number)
        elif node is not None and node.plane is not None:
            switches[node.tier].add((node.plane, node.number))
        elif link is not None and len(link) == 2:
            accesses.add(link)
        elif link is not None and len(link) == 3:
            uplinks.add(link)
        elif plane is not None and int(plane[1]) < shape.planes:
            planes.add(int(plane[1]))
        else:
            error = shape.unknown(name, "plane, node, port or link", near=len(errors) < SHOWN)
            if plane is not None:
                error.nearest = f"p{shape.planes - 1}"
            errors.append((position, error))
    absence = Absence(
        frozenset(planes),
        frozenset(hosts),
        frozenset(switches[Tier.T0]),
        frozenset(switches[Tier.T1]),
        frozenset(accesses),
        frozenset(uplinks),
    )
    return absence, errors
