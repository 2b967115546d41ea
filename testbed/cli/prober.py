"""``testbed prober``: probe every link of a running fabric, and name what fails."""

from __future__ import annotations

import json
import signal
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.common import Duration, attached, console, fabric_option
from testbed.errors import ExitCode

if TYPE_CHECKING:
    from rich.table import Table

    from testbed.localise.suspects import Change, Suspect
    from testbed.traffic.prober.prober import Prober

_REFRESH_S = 0.5


@click.command()
@fabric_option
@click.option("--for", "seconds", type=Duration(), help="How long, such as 10s or 5min. Default: until Ctrl-C.")
@click.option("--rate", type=click.FloatRange(min=1), help="Probes/s of the whole fabric, at most. Default: 5,000.")
@click.option("--healthy", type=Duration(), default=2.0, help="Clear what was healthy for so long. Default: 2s.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a line for each change and one at the end.")
def prober(fabric: str | None, seconds: float | None, rate: float | None, healthy: float, as_json: bool) -> None:
    """Probe every host's links to its T0s, to T1s and back, beside whatever else runs, and name what fails.

    Exits with 1 when something is still accused at the end, with 3 when so many probes are unknown that no verdict
    can be had.
    """
    found = attached(fabric)
    from testbed.traffic.workloads import Traffic

    workload = Traffic(found).prober(rate=rate, healthy_s=healthy)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with workload.running():
        if as_json:
            workload.listen(_print_change)
            _wait(workload, stopped, seconds)
        else:
            _show(workload, stopped, seconds, found.name)
    outcome = workload.outcome
    if as_json:
        _line({"what": "ended", **_totals(workload), "suspects": [each.as_json() for each in outcome.suspects]})
    found.client.close()
    if outcome.suspects:
        click.get_current_context().exit(int(ExitCode.FAIL))
    if 2 * outcome.counters["unknown"] > outcome.counters["sent"]:
        click.get_current_context().exit(int(ExitCode.UNKNOWN))


def _wait(workload: Prober, stopped: threading.Event, seconds: float | None) -> None:
    """Until it is over; ends early with the error of a prober that fails."""
    end = None if seconds is None else time.monotonic() + seconds
    while not stopped.wait(_left(end)) and (end is None or time.monotonic() < end):
        workload.go_on_for(0)


def _left(end: float | None) -> float:
    return _REFRESH_S if end is None else max(0.0, min(_REFRESH_S, end - time.monotonic()))


def _print_change(_suspects: tuple[Suspect, ...], change: Change) -> None:
    _line({"what": str(change.what), "t_ns": change.t_ns, **change.suspect.as_json()})


def _line(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def _totals(workload: Prober) -> dict[str, Any]:
    outcome = workload.outcome
    return {
        "rate": workload.rate,
        "period_s": workload.period_s,
        "cycle_s": workload.cycle_s,
        "waiting_time_s": workload.waiting_time_s,
        **{name: outcome.counters[name] for name in ("sent", "lost", "unknown", "late", "ring_drops", "backlog_drops")},
        "accused": len(outcome.accused),
    }


def _show(workload: Prober, stopped: threading.Event, seconds: float | None, name: str) -> None:
    """A table that follows, and a line for each change, which stays."""
    from rich.live import Live

    screen = console()
    screen.print(
        f"prober on {name}: {len(workload.loops)} loops, {workload.rate:.0f} probes/s, "
        f"a period {workload.period_s * 1e3:.3g} ms, a cycle of all loops {workload.cycle_s * 1e3:.3g} ms"
    )
    end = None if seconds is None else time.monotonic() + seconds
    with Live(_table(workload), console=screen, auto_refresh=False, transient=not screen.is_terminal) as live:
        workload.listen(lambda _, change: screen.print(_said(change)))
        while not stopped.wait(_left(end)) and (end is None or time.monotonic() < end):
            workload.go_on_for(0)
            if screen.is_terminal:
                live.update(_table(workload), refresh=True)
    if not screen.is_terminal:
        screen.print(_table(workload))


def _said(change: Change) -> str:
    at = datetime.fromtimestamp(change.t_ns * 1e-9).astimezone().strftime("%H:%M:%S.%f")[:-3]
    return f"{at}  {change.what}  {change.suspect.text()}"


def _table(workload: Prober) -> Table:
    from rich import box
    from rich.table import Table

    counters = workload.live_counters()
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=f"{counters['sent']} sent, {counters['lost']} lost, {counters['unknown']} unknown",
        caption_justify="left",
    )
    for column in ("suspect", "kind", "fault"):
        table.add_column(column, no_wrap=True)
    for column in ("rate", "95%", "hit/probes", "sure"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("or")
    for each in workload.suspects():
        table.add_row(
            str(each.element),
            str(each.element.kind),
            str(each.fault),
            f"{each.rate:.2%}",
            f"{each.rate_lo:.2%}–{each.rate_hi:.2%}",
            f"{each.hit}/{each.probes}",
            f"{each.confidence:.2%}",
            ", ".join(map(str, each.instead)),
        )
    if not table.row_count:
        table.add_row("nothing", *[""] * 7)
    return table
