"""``testbed path``: the way of an entropy value through a lab, by plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from testbed.cli.common import json_option, write_json
from testbed.errors import LabError

if TYPE_CHECKING:
    from testbed.addressing import AddressPlan


class Ev(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """An entropy value, ``11`` or ``0x000b``."""

    name = "ev"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Its number."""
        if isinstance(value, int):
            return value
        try:
            return int(value, 0)
        except ValueError:
            self.fail(f"{value!r} is not an entropy value such as 11 or 0x000b", param, ctx)


def chosen(plan: AddressPlan, src: str, dst: str, evs: tuple[int, ...], every: bool) -> list[int]:
    """The entropy values meant: those named, else all, else the first. Raises LabError where there are none."""
    if evs and every:
        raise click.UsageError("--ev and --all exclude each other")
    usable = plan.evs(src, dst)
    if not usable:
        raise LabError(f"no path leads from {src} to {dst} in this lab", found="no common plane")
    for ev in evs:
        plan.path(src, dst, ev)
    return list(dict.fromkeys(evs)) or list(usable if every else usable[:1])


@click.command()
@click.argument("src")
@click.argument("dst")
@click.option("--lab", "lab_name", default="laptop", show_default=True, help="A shipped lab, or a file.")
@click.option("--fabric", metavar="NAME", help="Take the lab of this running fabric.")
@click.option("--ev", "evs", type=Ev(), multiple=True, help="Entropy value; may be repeated. Default: the first.")
@click.option("--all", "every", is_flag=True, help="Every entropy value of the pair.")
@json_option
def path(
    src: str, dst: str, lab_name: str, fabric: str | None, evs: tuple[int, ...], every: bool, as_json: bool
) -> None:
    """Show hop by hop where packets from host SRC to host DST go, and their destination on every link.

    This is the plan: nothing needs to run. `testbed ping` tells whether packets really arrive.
    """
    from testbed.addressing import AddressPlan
    from testbed.lab import Lab

    if fabric is not None:
        from testbed.cli.common import attached

        found = attached(fabric)
        lab = found.lab
        found.client.close()
    else:
        lab = Lab.load(lab_name)
    plan = AddressPlan(lab)
    described = [describe(plan, src, dst, ev) for ev in chosen(plan, src, dst, evs, every)]
    if as_json:
        write_json({"lab": lab.name, "src": src, "dst": dst, "paths": described})
        return
    click.echo(f"{src} → {dst} in lab {lab.name}: {len(plan.evs(src, dst))} paths")
    for each in described:
        click.echo("")
        _print(each)


def describe(plan: AddressPlan, src: str, dst: str, ev: int) -> dict[str, Any]:
    """One path, JSON-serialisable: a hop per link with the destination as seen on it."""
    from testbed.addressing import unpack_ev

    found = plan.path(src, dst, ev)
    plane, uplink = unpack_ev(ev)
    hops = [
        {"from": one, "link": link.name, "to": other, "destination": str(address)}
        for one, other, (link, address) in zip(found.nodes, found.nodes[1:], plan.hops(src, dst, ev), strict=False)
    ]
    targets = [*found.nodes[1:-1], f"{dst}:p{plane}"]
    return {
        "ev": ev,
        "plane": plane,
        "uplink": uplink,
        "nodes": list(found.nodes),
        "usids": [{"usid": usid, "means": name} for usid, name in zip(found.usids, targets, strict=True)],
        "source": str(plan.port_address(src, plane)),
        "destination": str(plan.destination(src, dst, ev)),
        "hops": hops,
    }


def _print(facts: dict[str, Any]) -> None:
    click.echo(f"EV {facts['ev']:#06x}  plane {facts['plane']}, uplink {facts['uplink']}")
    click.echo("  uSIDs  " + "  ".join(f"{entry['usid']:04x} {entry['means']}" for entry in facts["usids"]))
    rows = [(hop["link"], f"{hop['from']} → {hop['to']}", hop["destination"]) for hop in facts["hops"]]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    for number, (link, ends, destination) in enumerate(rows, 1):
        click.echo(f"  {number}  {link:<{first}}  {ends:<{second}}  {destination}")
