"""``testbed ping``: real probes over the paths of a running fabric, hop by hop."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.common import Duration, attached, console, fabric_option, json_option, write_json
from testbed.cli.path import Ev, chosen
from testbed.errors import ExitCode

if TYPE_CHECKING:
    from testbed.fabric.netns.ping import Leg, Reply, Statistics


@click.command()
@click.argument("src")
@click.argument("dst")
@fabric_option
@click.option("--ev", "evs", type=Ev(), multiple=True, help="Entropy value; may be repeated. Default: the first.")
@click.option("--all", "every", is_flag=True, help="Every entropy value of the pair.")
@click.option("-c", "count", type=click.IntRange(min=1), help="Rounds. Default: until Ctrl-C.")
@click.option("-i", "interval", type=Duration(), default=1.0, help="Between rounds, such as 200ms. Default: 1s.")
@click.option("-W", "timeout", type=Duration(), default=1.0, help="A probe is lost after this. Default: 1s.")
@json_option
def ping(
    src: str,
    dst: str,
    fabric: str | None,
    evs: tuple[int, ...],
    every: bool,
    count: int | None,
    interval: float,
    timeout: float,
    as_json: bool,
) -> None:
    """Probe the paths from host SRC to host DST with real packets, so that loss shows where it happens.

    Every round sends one probe a leg: to each switch of the path and back, then to DST one-way. Exits with 1 when
    probes were lost. Times include the sending host's software.
    """
    if interval < _LEAST_INTERVAL_S:
        raise click.BadParameter(f"at least {_LEAST_INTERVAL_S * 1000:.0f} ms", param_hint="-i")
    found = attached(fabric)
    from testbed.fabric.netns.ping import Pinging, Statistics, legs

    plan = found.addresses
    paths = [legs(plan, src, dst, ev) for ev in chosen(plan, src, dst, evs, every)]
    flat = [leg for each in paths for leg in each]
    counted = [Statistics() for _ in flat]
    running = Pinging(found, src, dst, flat, count=count, interval_s=interval, timeout_s=timeout)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: running.stop())
    if not as_json:
        _announce(src, dst, found.name, paths)
    rounds = _Rounds(paths[0]) if len(paths) == 1 and not as_json else None
    for reply in running:
        counted[reply.leg].add(reply)
        if rounds is not None:
            rounds.add(reply)
    results = []
    for each in paths:
        results.append(_result(each, counted[: len(each)]))
        del counted[: len(each)]
    if as_json:
        write_json({"fabric": found.name, "src": src, "dst": dst, "paths": results})
    else:
        _summary(results)
    if any(leg["received"] < leg["sent"] for result in results for leg in result["legs"]):
        click.get_current_context().exit(int(ExitCode.FAIL))
    if not any(leg["received"] for result in results for leg in result["legs"]):
        click.get_current_context().exit(int(ExitCode.UNKNOWN))


_LEAST_INTERVAL_S = 0.002


def _announce(src: str, dst: str, name: str, paths: list[list[Leg]]) -> None:
    click.echo(f"ping {src} → {dst} on {name}: {len(paths)} path{'s' if len(paths) > 1 else ''}")
    if len(paths) == 1:
        click.echo(f"EV {paths[0][0].ev:#06x}: " + " · ".join(leg.to for leg in paths[0]))


class _Rounds:
    """Prints a line a round, when all its probes are accounted for."""

    def __init__(self, path: list[Leg]) -> None:
        self._path = path
        self._open: dict[int, dict[int, Reply]] = {}

    def add(self, reply: Reply) -> None:
        replies = self._open.setdefault(reply.sequence, {})
        replies[reply.leg] = reply
        if len(replies) == len(self._path):
            del self._open[reply.sequence]
            texts = (f"{leg.to} {_time(replies[number])}" for number, leg in enumerate(self._path))
            click.echo(f"seq={reply.sequence}  " + "  ".join(texts))


def _time(reply: Reply) -> str:
    return reply.error or ("lost" if reply.ns is None else f"{reply.ns / 1e6:.3f} ms")


def _result(path: list[Leg], counted: list[Statistics]) -> dict[str, Any]:
    """Figures of one path, JSON-serialisable; times in ms."""
    from testbed.fabric.netns.ping import broken_at

    broken = broken_at(path, counted)
    return {
        "ev": path[0].ev,
        "broken_at": None if broken is None else {"link": path[broken].link, "node": path[broken].to},
        "legs": [
            {
                "to": leg.to,
                "way": "one-way" if leg.one_way else "round trip",
                "link": leg.link,
                "destination": leg.destination,
                "sent": each.sent,
                "received": each.received,
                "loss": each.loss,
                "errors": each.errors,
                "min_ms": each.least_ns / 1e6 if each.received else None,
                "avg_ms": None if each.mean_ns is None else each.mean_ns / 1e6,
                "max_ms": each.most_ns / 1e6 if each.received else None,
                "mdev_ms": None if each.mdev_ns is None else each.mdev_ns / 1e6,
            }
            for leg, each in zip(path, counted, strict=True)
        ],
    }


def _summary(results: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("EV", "to", "way"):
        table.add_column(column, no_wrap=True)
    for column in ("sent", "received", "loss", "min/avg/max/mdev (ms)"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        for number, leg in enumerate(result["legs"]):
            loss = "-" if leg["loss"] is None else f"{100 * leg['loss']:.4g}%"
            times = [leg[f"{name}_ms"] for name in ("min", "avg", "max", "mdev")]
            shown = "/".join("-" if value is None else f"{value:.3f}" for value in times)
            label = "" if number else f"{result['ev']:#06x}"
            table.add_row(label, leg["to"], leg["way"], str(leg["sent"]), str(leg["received"]), loss, shown)
    console().print(table)
    for result in results:
        if result["broken_at"] is not None:
            at = result["broken_at"]
            errors = sorted({text for leg in result["legs"] for text in leg["errors"]})
            why = f" ({'; '.join(errors)})" if errors else ""
            click.echo(f"EV {result['ev']:#06x} loses from {at['link']} or {at['node']} on{why}")
