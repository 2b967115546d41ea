"""``testbed qualify``: the paper's experiments on a lab, and the table beside its figures."""

from __future__ import annotations

import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from testbed.cli.common import console, json_option, require_linux, write_json
from testbed.errors import UsageError

if TYPE_CHECKING:
    from testbed.qualify.experiments import Experiment
    from testbed.qualify.running import Session


@click.command()
@click.argument("names", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--lab", metavar="LAB", help="Run all on this one, a file or a shipped lab [default: each on its own].")
@click.option("--quick", is_flag=True, help="Only the short profile: minutes.")
@click.option("--repeat", type=click.IntRange(1, 1000), metavar="N", help="Repetitions [default: 3, quick: 1].")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of orders and workloads; one more each repetition."
)
@click.option("--allow", metavar="LEVEL", help="As of pytest, on a rig: traffic, link, reboot or power (traffic).")
@click.option("--list", "only_list", is_flag=True, help="Say what there is, and run nothing.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write the table there, too.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write it there as a page.")
@json_option
def qualify(
    names: tuple[str, ...],
    lab: str | None,
    quick: bool,
    repeat: int | None,
    seed: int,
    allow: str | None,
    only_list: bool,
    markdown: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Run the experiments of the qualification, all or those named, and print them beside the paper's figures.

    Exit codes: 0 pass, 1 fail, 2 usage, 3 unknown, 4 infrastructure, 6 nothing ran.
    """
    from testbed.faults.permitted import parsed
    from testbed.lab import Lab
    from testbed.qualify import experiments, page, running, table, verdicts

    options = () if allow is None else ("--allow", str(parsed(allow)))
    asked = experiments.chosen(experiments.load(), names, quick=quick)
    if only_list:
        _list(asked, as_json)
        return
    require_linux()
    for option, file in (("--markdown", markdown), ("--html", html)):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError("there is no folder for the table", where=option, found=str(file.parent))
    if lab is not None and Path(lab).is_file():
        lab = str(Path(lab).resolve())
    scales = {each: Lab.load(each).time_scale for each in sorted({lab or one.lab for one in asked if one.tests})}
    repetitions = repeat or (1 if quick else 3)
    errors = console(stderr=True)
    began = time.monotonic()

    def tell(line: str) -> None:
        errors.print(f"{time.monotonic() - began:6.0f} s  {line}")

    session = running.run(asked, lab=lab, repetitions=repetitions, seed=seed, options=options, tell=tell)
    found = verdicts.rows(asked, session, scales, lab)
    facts = _facts(session, scales, repetitions, seed, time.monotonic() - began)
    if markdown is not None:
        markdown.write_text(table.markdown(found, facts), encoding="utf-8")
    if html is not None:
        html.write_text(page.html(found, facts), encoding="utf-8")
    if as_json:
        write_json({"facts": facts, "experiments": [row.to_json() for row in found]})
    else:
        table.show(found, console())
        for line in (*facts, table.counts(found)):
            click.echo(line)
    click.get_current_context().exit(int(verdicts.exit_code(found)))


def _list(asked: tuple[Experiment, ...], as_json: bool) -> None:
    if as_json:
        write_json([one.model_dump(mode="json", by_alias=True) for one in asked])
        return
    from rich.table import Table

    made = Table()
    for heading in ("experiment", "what", "lab", "quick", "limit, or why not here"):
        made.add_column(heading, overflow="fold")
    for one in asked:
        lab = one.lab if one.tests else ""
        made.add_row(one.id, one.what, lab, "yes" if one.quick else "", one.limit or one.not_here)
    console().print(made)


def _facts(session: Session, scales: dict[str, float], repetitions: int, seed: int, took_s: float) -> list[str]:
    """What a reader needs to run it again, and to doubt it."""
    from testbed.measure.provenance import machine_here, versions_here

    versions, machine = versions_here(), machine_here()
    once = repetitions == 1
    how_often = f"once, seed {seed}" if once else f"{repetitions} times, seeds {seed} to {seed + repetitions - 1}"
    memory = machine.memory_bytes / (1 << 30)
    facts = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, in {took_s / 60:.1f} minutes",
        f"testbed {versions.testbed}, Python {versions.python}, Linux {versions.kernel}",
        f"{machine.model}, {machine.cpus} processors, {memory:.1f} GiB",
        f"command: {shlex.join(['testbed', *sys.argv[1:]])}",
        f"{how_often}, in an order drawn anew each time" + ("" if once else "; ranges are of all repetitions"),
    ]
    for lab, scale in scales.items():
        drift = session.drift(lab) or "baselines before and after agree"
        facts.append(f"{lab}: 1 to {scale:g}; {drift if lab in session.before else 'no rates are judged'}")
    return facts
