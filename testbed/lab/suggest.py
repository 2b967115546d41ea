"""The nearest valid name to a wrong one: by its numbers where they can be read, else by its letters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from testbed.errors import nearest

if TYPE_CHECKING:
    from testbed.lab.shape import Shape

#: Near misses of a name: other separators, capitals, leading zeros, numbers too large.
_SWITCH = re.compile(r"p?(\d{1,6})[-_. ]*t([01])[-_. ]*(\d{1,6})", re.IGNORECASE)
_PLANE = re.compile(r"p(\d{1,6})")
_HOST = re.compile(r"h(?:ost)?[-_ ]?(\d{1,6})(?:[:/._ -]p?(\d{1,6}))?", re.IGNORECASE)


def suggest(shape: Shape, name: str, *, link: bool = False) -> str:
    """The nearest name of a node, port or link of this shape, or an empty string; ``link``: of a link alone."""
    one, tilde, other = name.partition("~")
    if tilde:
        return _link(shape, one.strip(), other.strip())
    found = _node_or_port(shape, name.strip())
    return _link_at(shape, found) if link else found


def _link_at(shape: Shape, name: str) -> str:
    """The first link of a node, or the link of a host's port."""
    if (port := shape.parse_host_port(name)) is not None:
        return shape.access(*port).name
    node = shape.parse_node(name)
    if node is None:
        return ""
    if node.plane is None:
        return shape.access(0, node.number).name
    if node.tier == "t1":
        return shape.uplink(node.plane, 0, node.number).name
    return shape.access(node.plane, node.number * shape.hosts_per_t0).name


def _node_or_port(shape: Shape, name: str) -> str:
    if match := _SWITCH.fullmatch(name):
        plane, tier, index = (int(part) for part in match.groups())
        count = shape.t1_per_plane if tier else shape.t0_per_plane
        plane = min(plane, shape.planes - 1)
        return f"p{plane}-t{tier}-{min(index, count - 1)}" if count else f"p{plane}-t0-0"
    if match := _HOST.fullmatch(name):
        host = f"h{min(int(match[1]), shape.host_count - 1)}"
        return f"{host}:p{min(int(match[2]), shape.planes - 1)}" if match[2] else host
    return nearest(name, _some_names(shape, ports=":" in name))


def _link(shape: Shape, one: str, other: str) -> str:
    """The link between what the two ends seem to be, in either order."""
    ends = [_node_or_port(shape, end) for end in (one, other)]
    host, plane = shape.parse_node(ends[0]), _PLANE.fullmatch(other)
    if host is not None and host.plane is None and plane is not None:  # h0~p1: a port, written like a link.
        return shape.access(min(int(plane[1]), shape.planes - 1), host.number).name
    for lower, upper in (ends, ends[::-1]):
        if (port := shape.parse_host_port(lower)) is not None:
            return shape.access(*port).name
        a, b = shape.parse_node(lower), shape.parse_node(upper)
        if a is None or b is None or b.plane is None:
            continue
        if a.plane is None:
            return shape.access(b.plane, a.number).name
        if a.tier < b.tier:
            return shape.uplink(a.plane, a.number, b.number).name
    return ""


def _some_names(shape: Shape, *, ports: bool) -> Iterator[str]:
    """Enough names to be near to; all of a small fabric, the first of each kind of a large one."""
    planes, hosts = range(shape.planes), range(min(shape.host_count, 256))
    kinds: list[Iterable[str]] = [(f"h{host}" for host in hosts), (f"p{plane}" for plane in planes)]
    for tier, count in ((0, shape.t0_per_plane), (1, shape.t1_per_plane)):
        kinds.extend((f"p{plane}-t{tier}-{index}" for index in range(min(count, 64))) for plane in planes)
    if ports:
        kinds.extend((f"h{host}:p{plane}" for host in hosts[:64]) for plane in planes)
    return chain.from_iterable(kinds)
