"""``testbed mrc``: MRC on the wire: captures decoded and judged, and Wireshark taught to."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from testbed.errors import ExitCode, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from testbed.mrc.wire.anatomy import Anatomy
    from testbed.mrc.wire.capturefile import Captured
    from testbed.mrc.wire.decode import Describer, Tally
    from testbed.mrc.wire.deviations import Deviation
    from testbed.mrc.wire.table import Table


class _Number(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """A number, ``17`` or ``0x11``."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Its value."""
        try:
            return value if isinstance(value, int) else int(value, 0)
        except ValueError:
            self.fail(f"{value!r} is not a number such as 17 or 0x11", param, ctx)


@click.group()
def mrc() -> None:
    """Decode and judge MRC packets."""


_choice_option = click.option(
    "--choice",
    "choices",
    metavar="NAME=VALUE",
    multiple=True,
    help="Read what the sources leave open in another way, such as bth_bit_order=ibta; may be repeated.",
)


@mrc.command()
@click.argument("file", metavar="FILE")
@click.option("-n", "count", type=click.IntRange(min=1), help="End after so many MRC packets.")
@click.option("--opcode", "opcodes", metavar="NAME", multiple=True, help="Only these; may be repeated.")
@click.option("--qp", "qps", type=_Number(), multiple=True, help="Only those to these queue pairs; may be repeated.")
@click.option("-q", "--quiet", is_flag=True, help="Only the packets that deviate, and the summary.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each packet, the last is the summary.")
@_choice_option
def decode(
    file: str,
    count: int | None,
    opcodes: tuple[str, ...],
    qps: tuple[int, ...],
    quiet: bool,
    as_json: bool,
    choices: tuple[str, ...],
) -> None:
    """Decode the MRC packets of a capture, and list where they deviate from the tables.

    FILE is pcap or pcapng, gzipped or not; `-` is the standard input. Exits with 1 where a packet deviates, with 3
    where there was none to judge.
    """
    from testbed.mrc.wire.anatomy import PacketReader
    from testbed.mrc.wire.capturefile import CaptureFile
    from testbed.mrc.wire.decode import Describer, Tally
    from testbed.mrc.wire.deviations import Judge

    table = _table(choices)
    names = {table.opcodes[table.opcode(name.upper())].name for name in opcodes}
    reader, judge, tally = PacketReader(table), Judge(table), Tally()
    describer = Describer(table, judge)
    show = _as_json if as_json else _as_lines

    def wanted(found: Anatomy) -> bool:
        bth = found.headers.get("BTH")
        return (not names or describer.opcode(found) in names) and (not qps or (bth is not None and bth["dqp"] in qps))

    with ExitStack() as opened:
        capture = CaptureFile(_open(file, opened), file)
        try:
            for found in _mrc_packets(capture, reader.read, wanted, tally):
                deviations = judge.deviations(found)
                tally.add(found, deviations)
                if deviations or not quiet:
                    show(describer, found, deviations)
                if tally.mrc == count:
                    break
        finally:
            # Also of what came before a damage.
            if tally.packets:
                _summary(table, tally, capture.cut, as_json)
    if not tally.packets:
        _summary(table, tally, capture.cut, as_json)
    if not tally.mrc:
        click.echo(f"{file}: no such MRC packet among {tally.packets} packets: nothing was judged", err=True)
        click.get_current_context().exit(int(ExitCode.UNKNOWN))
    click.get_current_context().exit(int(ExitCode.FAIL if tally.deviating else ExitCode.PASS))


@mrc.command()
@click.option("--install", is_flag=True, help="Write it where Wireshark looks for the user's plugins.")
@_choice_option
def dissector(install: bool, choices: tuple[str, ...]) -> None:
    """Print the dissector for Wireshark and tshark, or install it."""
    from testbed.mrc.wire import dissector as made

    text = made.generate(_table(choices))
    if not install:
        click.echo(text, nl=False)
        return
    path = made.plugin_folder() / made.NAME
    made.install(path, text)
    click.echo(f"{path} written; restart Wireshark, or reload with Analyze > Reload Lua Plugins")


def _table(choices: tuple[str, ...]) -> Table:
    from testbed.mrc.wire.table import load

    table = load()
    known = vars(table.choices)
    changed: dict[str, str | int] = {}
    for text in choices:
        name, _, value = text.partition("=")
        if name not in known:
            raise UsageError(
                "the wire format has no such choice",
                where="--choice",
                found=name,
                expected=", ".join(known),
                nearest=nearest(name, known),
            )
        changed[name] = int(value) if isinstance(known[name], int) and value.isdecimal() else value
    return table.choosing(**changed) if changed else table


def _open(file: str, opened: ExitStack) -> BinaryIO:
    if file == "-":
        return sys.stdin.buffer
    try:
        return opened.enter_context(Path(file).open("rb"))
    except OSError as error:
        close = nearest(Path(file).name, [each.name for each in _beside(file)])
        raise UsageError(
            "this file cannot be opened", where=file, found=error.strerror or str(error), nearest=close
        ) from None


def _beside(file: str) -> list[Path]:
    try:
        return [each for each in Path(file).parent.iterdir() if each.is_file()]
    except OSError:
        return []


def _mrc_packets(
    capture: Iterable[Captured],
    read: Callable[[Captured], Anatomy | None],
    wanted: Callable[[Anatomy], bool],
    tally: Tally,
) -> Iterator[Anatomy]:
    for packet in capture:
        tally.packets += 1
        found = read(packet)
        if found is None:
            tally.not_mrc += 1
        elif wanted(found):
            yield found
        else:
            tally.other += 1


def _plane(found: Anatomy) -> str:
    return "-" if found.outer is None else _plane_of(found.outer.destination)


@lru_cache(maxsize=4096)
def _plane_of(destination: bytes) -> str:
    """The plane that all uSIDs of an outer destination name, where they are as generated ones are; else ``-``."""
    from testbed.lab.usids import KIND_PORT, KIND_T0, KIND_T1, ORDINARY, unpack
    from testbed.mrc.wire.decode import usids

    parts = [unpack(usid) for usid in usids(destination) if usid != ORDINARY]
    generated = all(kind in (KIND_T0, KIND_T1, KIND_PORT) for kind, _, _ in parts)
    planes = {plane for _, plane, _ in parts}
    return str(planes.pop()) if generated and len(planes) == 1 else "-"


# Not by click.echo, which flushes after every line.
def _as_lines(describer: Describer, found: Anatomy, deviations: list[Deviation]) -> None:
    sys.stdout.write(describer.line(found, _plane(found)) + "\n")
    for each in deviations:
        where = f"packet {found.packet.number} deviates: {each.field}"
        sys.stdout.write(f"    {where}: {each.found}, expected {each.expected}\n")


def _as_json(describer: Describer, found: Anatomy, deviations: list[Deviation]) -> None:
    sys.stdout.write(json.dumps(describer.facts(found, _plane(found), deviations)) + "\n")


def _summary(table: Table, tally: Tally, cut: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"summary": {"reading": table.reading, **tally.facts(), "file_cut_short": cut}}))
        return
    from testbed.cli.common import console

    if tally.kinds:
        from rich import box
        from rich.table import Table as Grid

        grid = Grid("deviation", box=box.SIMPLE_HEAD)
        grid.add_column("count", justify="right")
        grid.add_column("first in", justify="right")
        for name in ("found there", "expected"):
            grid.add_column(name, overflow="fold")
        for name, kind in sorted(tally.kinds.items(), key=lambda item: -item[1].count):
            grid.add_row(name, f"{kind.count:,}", str(kind.packet), kind.first.found, kind.first.expected)
        console().print(grid)
    judged = f"{_counted(tally.mrc, 'MRC packet')}, {tally.deviating:,} of them deviating"
    parts = [judged, f"{_counted(tally.not_mrc, 'other')} skipped"]
    if tally.other:
        parts.insert(1, f"{_counted(tally.other, 'MRC packet')} not asked for")
    if tally.unchecked:
        parts.append(f"{tally.unchecked:,} not whole: ICRC not checked")
    if cut:
        parts.append("the file ends within a packet")
    click.echo("; ".join(parts))
    click.echo(f"by reading {table.reading} of the tables: a reading, no conformance")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
