"""``testbed lab``: look at lab files before anything is built from them."""

from __future__ import annotations

import json
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from testbed.addressing import AddressPlan
from testbed.errors import LabError
from testbed.lab import Lab, lab_schema
from testbed.lab.quantities import format_rate, format_size


@click.group()
def lab() -> None:
    """Show and check lab files."""


@lab.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show what the lab NAME holds: a shipped lab, or a file."""
    loaded = Lab.load(name)
    facts = describe(loaded)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print(facts)


@lab.command()
@click.argument("files", nargs=-1, required=True)
def validate(files: tuple[str, ...]) -> None:
    """Check FILES, lab files or names of shipped labs; report every error of all of them."""
    wrong: list[LabError] = []
    for name in files:
        try:
            loaded = Lab.load(name)
        except LabError as error:
            wrong.append(error)
            for line in error.lines():
                click.echo(line, err=True)
        else:
            click.echo(f"{name}: valid, {loaded.name} with {len(loaded.topology.nodes)} nodes")
    if wrong:
        click.get_current_context().exit(int(wrong[0].exit_code))


@lab.command()
def schema() -> None:
    """Print the JSON Schema of lab files, for editors."""
    click.echo(json.dumps(lab_schema(), indent=2, ensure_ascii=False))


def describe(loaded: Lab) -> dict[str, Any]:
    """The facts of a lab that ``show`` prints, JSON-serialisable; rates in bit/s, sizes in bytes."""
    plan, shape, topology = AddressPlan(loaded), loaded.shape, loaded.topology
    planes = [plane for plane in range(shape.planes) if shape.has_plane(plane)]
    first, last = topology.hosts[0], topology.hosts[-1]
    facts: dict[str, Any] = {
        "name": loaded.name,
        "description": loaded.description,
        "planes": len(planes),
        "hosts": len(topology.hosts),
        "t0s": len(topology.t0s),
        "t1s": len(topology.t1s),
        "nodes": len(topology.nodes),
        "links": sum(1 for plane in planes for _ in (*shape.accesses(plane), *shape.uplinks(plane))),
        "absent": list(loaded.absent),
        "rate": {"emulated": loaded.emulated_rate, "represented": loaded.link.rate},
        "time_scale": loaded.time_scale,
        "mtu": loaded.link.mtu,
        "queue_bytes": loaded.queue_bytes,
        "ecn_bytes": loaded.ecn_bytes,
        "active_evs": loaded.evs.active,
        "limits": {name: str(limit) for name, limit in loaded.limits.items()},
        "roles": {name: list(role.argv) for name, role in loaded.roles.named().items()},
        "block": str(plan.block),
        "nic_prefix": str(plan.nic_prefix),
        "nic": {first: str(plan.nic_address(first))},
        "sid": {switch: str(plan.sid(switch)) for switch in (*topology.t0s[:1], *topology.t1s[:1])},
        "pairs": [],
    }
    beside = topology.hosts[1] if len(topology.hosts) > 1 else first
    for src, dst in dict.fromkeys([(first, beside), (first, last)]):
        if src != dst:
            evs = plan.evs(src, dst)
            destination = str(plan.destination(src, dst, evs[0])) if evs else None
            facts["pairs"].append({"hosts": [src, dst], "paths": len(evs), "destination": destination})
    return facts


def _print(facts: dict[str, Any]) -> None:
    console = Console()
    table = Table(box=box.SIMPLE, show_header=False, title=escape(facts["name"]), caption=escape(facts["description"]))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, value: object) -> None:
        table.add_row(name, escape(str(value)))

    row("planes", facts["planes"])
    row("nodes", f"{facts['nodes']}: {facts['hosts']} hosts, {facts['t0s']} T0s, {facts['t1s']} T1s")
    row("links", facts["links"])
    if facts["absent"]:
        row("absent", ", ".join(facts["absent"]))
    rate = facts["rate"]
    if rate["emulated"] is None:
        row("rate", "unshaped")
    else:
        row("rate, emulated", f"{format_rate(rate['emulated'])} a link, {format_size(facts['queue_bytes'])} of queue")
        marks = facts["ecn_bytes"]
        row("ECN", "off" if marks is None else f"marked beyond {format_size(marks)} of queue, between switches")
        row("rate, represented", f"{format_rate(rate['represented'])} a link, at time scale {facts['time_scale']:g}")
    row("MTU", f"{facts['mtu']} bytes")
    row("active EVs", f"{facts['active_evs']} a queue pair, where its hosts have as many paths")
    for pair in facts["pairs"]:
        src, dst = pair["hosts"]
        row(f"paths {src} → {dst}", f"{pair['paths']}, first to {pair['destination']}" if pair["paths"] else "none")
    row("uSID block", facts["block"])
    for kind in ("sid", "nic"):
        for name, address in facts[kind].items():
            row(f"{name} {'uN' if kind == 'sid' else 'NIC'}", address)
    for name, limit in facts["limits"].items():
        row(f"limit {name}", limit)
    for name, argv in facts["roles"].items():
        row(f"role {name}", " ".join(argv))
    console.print(table)
