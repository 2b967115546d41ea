"""``testbed capture``: the packets on ports of a running fabric, as lines or as a file."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from testbed.cli.common import attached, fabric_option
from testbed.errors import InfrastructureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.fabric.netns.capture import Capture
    from testbed.fabric.netns.packets import Decoder
    from testbed.fabric.netns.pcapng import PortTotals, Record

_FILTER_HELP = "in, out, ip6, udp, tcp, icmp6, ip6-in-ip6, port N, src X, dst X, usid X; not before one; all must hold"


@click.command(context_settings={"ignore_unknown_options": True}, epilog=f"FILTER: {_FILTER_HELP}.")
@click.argument("ports", metavar="NODE[:PORT][,…]")
@fabric_option
@click.option("-w", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write pcapng instead of lines.")
@click.option("-c", "count", type=click.IntRange(min=1), help="End after so many packets.")
@click.argument("words", metavar="[FILTER]…", nargs=-1)
def capture(ports: str, fabric: str | None, file: Path | None, count: int | None, words: tuple[str, ...]) -> None:
    """Show the packets on one or more ports, with their uSID lists; or write them with -w. Ctrl-C ends it.

    NODE stands for all ports of a node. Needs no tcpdump and no root.
    """
    found = attached(fabric)
    from testbed.fabric.netns import capture as captures
    from testbed.fabric.netns import filters, pcapng
    from testbed.fabric.netns.packets import Decoder as PacketDecoder

    listed = captures.ports_of(found, [part for part in ports.split(",") if part])
    wanted = filters.parse(words, found.lab)
    decoder = PacketDecoder(found.lab)
    output = _open(file)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    running = captures.start(found, listed, writer)
    os.close(writer)
    stopped = threading.Event()

    def stop(*_: object) -> None:
        # From a thread: the capture writes into a pipe that this thread must go on reading meanwhile.
        if not stopped.is_set():
            stopped.set()
            threading.Thread(target=_end, args=(running,), daemon=True).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    click.echo(f"capturing on {', '.join(map(str, listed[:4]))}{' …' if len(listed) > 4 else ''}", err=True)
    numbers = {str(port): number for number, port in enumerate(listed)}
    if output is not None:
        output.write(pcapng.head(list(numbers), 0))
    with open(reader, "rb") as stream:
        shown, totals = _follow(
            stream,
            lambda record: wanted(decoder.packet(record)),
            lambda record: _put(record, output, numbers, decoder),
            count,
            stop,
        )
    if output is not None:
        output.close()
    if not totals:
        raise InfrastructureError("the capture ended early", remedy="`testbed status` tells whether the fabric runs")
    dropped = sum(entry.dropped for entry in totals)
    seen = sum(entry.received for entry in totals)
    where = "" if file is None else f" written to {file}"
    click.echo(f"{shown} packets{where}, {seen} seen, {dropped} dropped by the capture itself", err=True)


def _open(file: Path | None) -> BinaryIO | None:
    if file is None:
        return None
    try:
        return file.open("wb")
    except OSError as error:
        raise UsageError("this file cannot be written", where=str(file), found=error.strerror or str(error)) from None


def _end(running: Capture) -> None:
    # What went wrong shows in the stream, which then has no totals.
    with suppress(InfrastructureError):
        running.stop()


def _put(record: Record, output: BinaryIO | None, numbers: dict[str, int], decoder: Decoder) -> None:
    from testbed.fabric.netns import pcapng

    if output is None:
        click.echo(decoder.line(record))
    else:
        output.write(pcapng.packet(numbers[record.port], record.t_ns, record.outgoing, record.length, record.data))


def _follow(
    stream: BinaryIO,
    wanted: Callable[[Record], bool],
    put: Callable[[Record], None],
    count: int | None,
    stop: Callable[[], None],
) -> tuple[int, list[PortTotals]]:
    """Pass on what is wanted until the stream ends; packets passed on, and the totals it ended with."""
    from testbed.fabric.netns import pcapng

    shown = 0
    totals = []
    for item in pcapng.read(stream):
        if isinstance(item, pcapng.PortTotals):
            totals.append(item)
        elif (count is None or shown < count) and wanted(item):
            put(item)
            shown += 1
            if shown == count:
                stop()
    return shown, totals
