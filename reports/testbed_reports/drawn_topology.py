"""The fabric as a drawing: one panel per plane, T1s above T0s above hosts; faults and losses marked on it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from markupsafe import Markup

from testbed.lab import Lab, Link, Shape
from testbed.measure.result_parts import DropRecord, FaultRecord
from testbed_reports.display import count
from testbed_reports.svg import el, text, together

#: Fabrics with more links than this are summarised per plane: lines would touch, and the page would be megabytes.
MOST_LINKS = 600
WIDTH = 1120.0
_GAP = 10.0
_T1_Y, _T0_Y, _HOST_Y, _HEIGHT = 58.0, 122.0, 178.0, 206.0
_PLANE = re.compile(r"p(\d{1,4})")


@dataclass
class Marks:
    """What the drawing shows beyond the fabric itself.

    Attributes:
        faulted: nodes and links that a fault was injected into.
        faulted_planes: planes that have a faulted part, or are faulted whole.
        lost: packets lost, per node or link.
        elsewhere: packets lost at places that are neither, by name.

    """

    faulted: set[str] = field(default_factory=set)
    faulted_planes: set[int] = field(default_factory=set)
    lost: Counter[str] = field(default_factory=Counter)
    elsewhere: Counter[str] = field(default_factory=Counter)


def marks(shape: Shape, faults: Iterable[FaultRecord], drops: Iterable[DropRecord]) -> Marks:
    """Find the places that faults and drops name; a port stands for its link."""
    out = Marks()
    for fault in faults:
        for name in fault.subject.replace(",", " ").split():
            place, plane = _place(shape, name)
            if place:
                out.faulted.add(place)
            if plane is not None:
                out.faulted_planes.add(plane)
    for drop in drops:
        place, _ = _place(shape, drop.hop)
        (out.lost if place else out.elsewhere)[place or drop.hop] += drop.packets
    return out


def _place(shape: Shape, name: str) -> tuple[str, int | None]:
    """The node or link of a name and its plane; an empty name for a whole plane or for neither."""
    node = shape.parse_node(name)
    if node is not None:
        return name, node.plane
    link = shape.parse_link(name)
    if link is not None:
        found = shape.access(*link) if len(link) == 2 else shape.uplink(*link)
        return found.name, found.plane
    plane = _PLANE.fullmatch(name)
    return "", int(plane[1]) if plane else None


def draw_topology(lab: Lab, found: Marks) -> Markup:
    """The drawing as one ``<svg>``."""
    whole = len(lab.topology.links) <= MOST_LINKS
    hosts = len(lab.topology.hosts)
    columns = min(lab.planes, 8 if not whole or hosts <= 6 else 4 if hosts <= 20 else 2)
    width = (WIDTH - _GAP * (columns - 1)) / columns
    height = _HEIGHT if whole else 190.0
    panels = []
    planes = [plane for plane in range(lab.planes) if lab.shape.has_plane(plane)]
    for position, plane in enumerate(planes):
        x, y = position % columns * (width + _GAP), position // columns * (height + _GAP)
        content = _panel(lab, plane, width, found) if whole else _summary(lab, plane, width, found)
        hit = plane in found.faulted_planes
        frame = el("rect", width=width, height=height, rx=6.0, class_="panel hit" if hit else "panel")
        heading = text(f"plane {plane}", 10.0, 18.0, "plane")
        flag = text("fault", width - 10, 18.0, "flag", text_anchor="end") if hit else ""
        panels.append(el("g", frame, heading, flag, content, transform=f"translate({x:.1f} {y:.1f})"))
    rows = -(-len(planes) // columns)
    total = rows * height + (rows - 1) * _GAP
    return el(
        "svg",
        el("title", f"Fabric {lab.name}: {lab.planes} planes, {hosts} hosts"),
        *panels,
        viewBox=f"-1 -1 {WIDTH + 2:.0f} {total + 2:.0f}",
        class_="topology",
        role="img",
    )


def _spread(names: list[str], width: float) -> dict[str, float]:
    """Centres of nodes, evenly over the panel's width."""
    step = (width - 16) / max(len(names), 1)
    return {name: 8 + step * (position + 0.5) for position, name in enumerate(names)}


def _panel(lab: Lab, plane: int, width: float, found: Marks) -> Markup:
    topology = lab.topology
    links = [link for link in topology.links if link.plane == plane]
    t1s = [name for name in topology.t1s if topology.plane_of(name) == plane]
    t0s = [name for name in topology.t0s if topology.plane_of(name) == plane]
    rows = ((t1s, _T1_Y), (t0s, _T0_Y), (list(topology.hosts), _HOST_Y))
    at = {name: (x, y) for names, y in rows for name, x in _spread(names, width).items()}
    quiet = [link for link in links if not (found.lost[link.name] or link.name in found.faulted)]
    lines = "".join(_line(link, at) for link in quiet)
    loud = [_loud_link(link, at, found) for link in links if found.lost[link.name] or link.name in found.faulted]
    nodes = []
    for names, y in rows:
        step = (width - 16) / max(len(names), 1)
        # Labels of hosts stand side by side: name every second or fourth where they would touch.
        every = max(-(-max((6 * len(name) + 3 for name in names), default=0) // max(int(step), 1)), 1)
        nodes += [_node(name, at[name][0], y, step, found, n % every == 0) for n, name in enumerate(names)]
    return together([el("path", d=lines, class_="link") if lines else "", *loud, *nodes])


def _line(link: Link, at: dict[str, tuple[float, float]]) -> str:
    (x1, y1), (x2, y2) = at[link.a.node], at[link.b.node]
    return f"M{x1:.1f} {y1:.0f}L{x2:.1f} {y2:.0f}"


def _loud_link(link: Link, at: dict[str, tuple[float, float]], found: Marks) -> Markup:
    lost, faulted = found.lost[link.name], link.name in found.faulted
    kind = "link" + (" lossy" if lost else "") + (" faulted" if faulted else "")
    about = ", ".join(
        part for part in (f"{count(lost)} packets lost" if lost else "", "faulted" if faulted else "") if part
    )
    parts = [el("title", f"{link.name}: {about}"), el("path", d=_line(link, at), class_=kind)]
    (x1, y1), (x2, y2) = at[link.a.node], at[link.b.node]
    if lost:
        # A third of the way up from the lower end: there, lines to one switch lie furthest apart.
        x, y = x1 + (x2 - x1) / 3, y1 + (y2 - y1) / 3
        parts.append(text(f"−{count(lost)}", x, y + 4, "tally", text_anchor="middle"))
    if faulted:
        parts.append(text("✕", (x1 + x2) / 2, (y1 + y2) / 2 + 5, "cross", text_anchor="middle"))
    return el("g", *parts)


def _node(name: str, x: float, y: float, step: float, found: Marks, named: bool) -> Markup:
    host = name.startswith("h")
    faulted, lost = name in found.faulted, found.lost[name]
    width = min(step - 5, 16.0 if host else 42.0)
    height = 12.0 if host else 20.0
    about = name + (", faulted" if faulted else "") + (f", {count(lost)} packets lost here" if lost else "")
    kind = ("host" if host else "switch") + (" faulted" if faulted else "") + (" lossy" if lost else "")
    parts = [
        el("title", about),
        el("rect", x=x - width / 2, y=y - height / 2, width=width, height=height, rx=3.0, class_=kind),
    ]
    short = name if host else name.partition("-")[2]
    if host and (named or faulted):
        parts.append(text(short, x, y + 19, "small", text_anchor="middle"))
    elif not host and width >= 26:
        parts.append(text(short, x, y + 3.5, "name faulted" if faulted else "name", text_anchor="middle"))
    if lost:
        # Beside a link's own tally, and above the node, where no line ends.
        parts.append(text(f"−{count(lost)}", x, y - height / 2 - 3, "tally", text_anchor="middle"))
    if faulted:
        parts += [
            el("circle", cx=x + width / 2, cy=y - height / 2, r=7.0, class_="badge"),
            text("!", x + width / 2, y - height / 2 + 4, "bang", text_anchor="middle"),
        ]
    return el("g", *parts)


def _summary(lab: Lab, plane: int, width: float, found: Marks) -> Markup:
    """A plane too large to draw: its tiers as boxes, its links as bands, what is wrong in words."""
    topology = lab.topology
    links = [link for link in topology.links if link.plane == plane]
    t1s = [name for name in topology.t1s if topology.plane_of(name) == plane]
    t0s = [name for name in topology.t0s if topology.plane_of(name) == plane]
    uplinks = [link for link in links if not link.name.startswith("h")]
    access = [link for link in links if link.name.startswith("h")]
    parts = [_band(uplinks, 54.0, width, found), _band(access, 100.0, width, found)]
    tiers = (("T1", t1s, 32.0), ("T0", t0s, 78.0), ("hosts", list(topology.hosts), 124.0))
    for tier, names, y in tiers:
        hit = any(name in found.faulted for name in names)
        rest = {"x": 10.0, "y": y, "width": width - 20, "height": 22.0, "rx": 4.0}
        parts.append(el("rect", class_="switch faulted" if hit else "switch", **rest))
        kind = "name faulted" if hit else "name"
        parts.append(text(f"{count(len(names))} {tier}", width / 2, y + 15, kind, text_anchor="middle"))
    mine = {*t0s, *t1s, *(link.name for link in links)}
    faulted = sorted(found.faulted & mine)
    shown = faulted[:2] + ([f"and {len(faulted) - 2} more"] if len(faulted) > 2 else [])
    parts += [text(f"! {name}", 10.0, 164 + 15.0 * row, "flag") for row, name in enumerate(shown)]
    return together(parts)


def _band(links: list[Link], y: float, width: float, found: Marks) -> Markup:
    """All links between two tiers of one plane."""
    lost = sum(found.lost[link.name] for link in links)
    lossy = sum(1 for link in links if found.lost[link.name])
    about = f"{count(len(links))} links" + (f", {count(lost)} packets lost on {count(lossy)} of them" if lost else "")
    label = f"−{count(lost)}" if lost else f"{count(len(links))} links"
    kind = "band lossy" if lost else "band"
    return el(
        "g",
        el("title", about),
        el("rect", x=width * 0.2, y=y, width=width * 0.6, height=24.0, class_=kind),
        text(label, width / 2, y + 16, "tally" if lost else "small", text_anchor="middle"),
    )
