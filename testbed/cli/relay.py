"""``testbed relay``: the WebRTC relay: run it, look at it, load it; its ufrags and keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.common import Duration, console, json_option, require_linux, write_json
from testbed.errors import InfrastructureError, UsageError

if TYPE_CHECKING:
    from testbed.voice.keys import Keys

_keys_option = click.option(
    "--keys", "keys_file", metavar="FILE", required=True, help="The keys, a file that only you may read."
)


@click.group()
def relay() -> None:
    """Run a WebRTC relay, look at it, load it; make its keys and ufrags."""


@relay.command()
@click.option("--listen", metavar="[ADDR]:PORT", default=":3478", show_default=True, help="Where clients send to.")
@click.option(
    "--internal",
    metavar="[ADDR]:PORT",
    default=":3480",
    show_default=True,
    help="Where transceivers and other relays send to.",
)
@click.option("--table", metavar="FILE", required=True, help="Transceivers and clusters by number; docs/voice.md.")
@_keys_option
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes, one per core.")
@click.option("--no-pin", is_flag=True, help="Leave the choice of a processor to the kernel.")
@click.option(
    "--store",
    metavar="STORE",
    default="none",
    show_default=True,
    help="none, embedded, embedded:DIR, the URL of a Redis server, or @FILE with it.",
)
@click.option("--metrics", metavar="[ADDR]:PORT", help="Serve Prometheus metrics there; a bare port is on 127.0.0.1.")
@click.option("--sessions", type=click.IntRange(1, 1 << 20), default=16384, show_default=True, help="Of each worker.")
@click.option(
    "--per-source",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Sessions of an IPv4 address or an IPv6 /64, with each worker.",
)
@click.option("--idle", type=Duration(), default="30s", show_default=True, help="A session ends after such a silence.")
@click.option("--drain", type=Duration(), default="30s", show_default=True, help="How long sessions go on at SIGTERM.")
def run(
    listen: str,
    internal: str,
    table: str,
    keys_file: str,
    workers: int,
    no_pin: bool,
    store: str,
    metrics: str | None,
    sessions: int,
    per_source: int,
    idle: float,
    drain: float,
) -> None:
    """Relay between clients and transceivers until a signal.

    SIGTERM drains, SIGINT ends at once, SIGHUP takes table and keys anew; so does a change of these files.
    """
    require_linux()
    # Before numpy comes in: its threads are of no use here, and workers are forked.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from testbed.voice.addresses import Address
    from testbed.voice.relay.options import Options
    from testbed.voice.relay.settings import Settings
    from testbed.voice.relay.store import StoreChoice, require_client
    from testbed.voice.relay.supervisor import Supervisor, complain

    choice = StoreChoice.parse(store)
    if choice is not None:
        require_client()
    if metrics is not None and metrics.isdecimal():
        metrics = f"127.0.0.1:{metrics}"
    options = Options(
        listen=Address.parse(listen, where="--listen", wildcard=True),
        internal=Address.parse(internal, where="--internal", wildcard=True),
        table=Path(table),
        keys=Path(keys_file),
        workers=workers,
        pinned=not no_pin,
        store=choice,
        metrics=Address.parse(metrics, where="--metrics", wildcard=True) if metrics else None,
        settings=Settings(sessions=sessions, per_source=per_source, idle_ms=int(idle * 1000), drain_s=drain),
    )
    sys.exit(Supervisor(options, complain).run())


@relay.command()
@click.argument("pid", type=int, required=False)
@json_option
def status(pid: int | None, as_json: bool) -> None:
    """Tell how the relays of this machine are, or the one with the process number PID."""
    require_linux()
    from testbed.voice.relay.control import ask, running

    pids = running() if pid is None else [pid]
    found = [ask(each) for each in pids]
    if as_json:
        write_json(found)
    elif not found:
        raise InfrastructureError("no relay is running here", remedy="`testbed relay run` starts one")
    else:
        for each in found:
            _show(each)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    state = "draining" if found["draining"] else "relaying"
    where = f"clients {found['listen']}, transceivers {found['internal']}"
    click.echo(f"relay {found['pid']}: {state}; {where}" + (f", metrics {found['metrics']}" * bool(found["metrics"])))
    places = f"{found['transceivers']:,} transceivers, {found['clusters']:,} clusters"
    click.echo(f"table {found['table']}, number {found['configuration']}: {places}")
    if found["refused"]:
        click.echo(f"a newer one is refused:\n{found['refused']}")
    grid = Table("worker", "pid", "state", "sessions", "held", "starts", "dropped by the kernel", box=None)
    for each in found["workers"]:
        dropped = "public {public:,}, internal {internal:,}".format(**each["socket_dropped"])
        grid.add_row(
            str(each["worker"]),
            str(each["pid"]),
            "running" if each["running"] else "still",
            f"{each['sessions']:,}",
            str(each["held"]),
            str(each["starts"]),
            dropped,
        )
    console().print(grid)
    for way in ("inward", "outward"):
        received = sum(found["received"][way].values())
        click.echo(f"{way}: {received:,} received, {found['forwarded'][way]:,} sent on")
    drops = ", ".join(f"{reason} {count:,}" for reason, count in found["dropped"].items() if count)
    click.echo(f"dropped: {drops or 'none'}")
    store = found["store"]
    if store["state"] != "none":
        counts = ", ".join(f"{name} {store[name]:,}" for name in ("written", "dropped", "lookups", "found"))
        click.echo(f"store: {store['state']}; {counts}")


@relay.command()
@click.argument("file", metavar="FILE")
@click.option("--add", is_flag=True, help="Add new keys, which are taken and not used to make yet.")
@click.option("--switch", is_flag=True, help="Make with the other keys from now on; both are taken.")
@click.option("--for-transceiver", metavar="OUT", help="Write to OUT what a transceiver may have of FILE.")
def keys(file: str, add: bool, switch: bool, for_transceiver: str | None) -> None:
    """Make the keys of relays, as a file that only you may read.

    To rotate them under calls: --add, and give the file to all relays and transceivers; then --switch, and give it to
    all again.
    """
    from testbed.voice.keys import Keys

    path = Path(file)
    if add and switch:
        raise UsageError("between adding and switching the file goes to all", expected="--add or --switch")
    if add or switch or for_transceiver:
        made: Keys = Keys.load(path, relay=True)
        if switch and len(made.ufrag.keys) < 2:
            raise UsageError("there is one key of each kind", where=file, remedy=f"testbed relay keys {file} --add")
        if add or switch:
            made = made.added() if add else made.switched()
            made.save(path)
        if for_transceiver:
            made.for_transceiver().save(Path(for_transceiver))
    else:
        if path.exists():
            raise UsageError(
                "the file is there already",
                where=file,
                remedy="--add and --switch rotate its keys; or choose another name",
            )
        Keys.make().save(path)


@relay.command()
@click.argument("text", metavar="[UFRAG]", required=False)
@_keys_option
@click.option("--cluster", type=int, metavar="N", help="Make one for this cluster …")
@click.option("--transceiver", type=int, metavar="N", help="… and this transceiver.")
@json_option
def ufrag(text: str | None, keys_file: str, cluster: int | None, transceiver: int | None, as_json: bool) -> None:
    """Make a ufrag, or tell what UFRAG says."""
    from testbed.voice.keys import Keys
    from testbed.voice.ufrag import MOST_CLUSTER, MOST_TRANSCEIVER, UfragError, decode, encode

    found = Keys.load(Path(keys_file), relay=False)
    if text is None:
        if cluster is None or transceiver is None:
            raise UsageError("nothing to do", expected="a ufrag, or --cluster and --transceiver to make one")
        if not 0 <= cluster <= MOST_CLUSTER or not 0 <= transceiver <= MOST_TRANSCEIVER:
            expected = f"cluster 0 to {MOST_CLUSTER:,}, transceiver 0 to {MOST_TRANSCEIVER:,}"
            raise UsageError("a number is out of range", found=f"{cluster}, {transceiver}", expected=expected)
        text = encode(cluster, transceiver, *found.ufrag.current)
        if not as_json:
            click.echo(text)
            return
    try:
        read = decode(text, found.ufrag.keys)
    except UfragError as error:
        raise UsageError("this ufrag is refused", where=keys_file, found=str(error)) from None
    facts = {"ufrag": text, "cluster": read.cluster, "transceiver": read.transceiver, "key": read.key}
    if as_json:
        write_json(facts)
    else:
        click.echo(f"cluster {read.cluster}, transceiver {read.transceiver}, made with key {read.key}")


@relay.command()
@_keys_option
@click.option("--relay", "target", metavar="ADDR:PORT", required=True, help="The relay's address for clients.")
@click.option("--sink", metavar="ADDR:PORT", required=True, help="The transceiver's address; the load plays it.")
@click.option("--cluster", type=int, metavar="N", required=True, help="Its cluster in the relay's table …")
@click.option("--transceiver", type=int, metavar="N", required=True, help="… and its number.")
@click.option("--calls", type=click.IntRange(1, 60000), default=100, show_default=True, help="A socket each.")
@click.option("--rate", type=click.FloatRange(min=0), default=50.0, show_default=True, help="Packets/s; 0: no limit.")
@click.option("--size", type=click.IntRange(24, 1500), default=160, show_default=True, help="Bytes of a packet.")
@click.option("--seconds", type=Duration(), default="10s", show_default=True, help="How long to send.")
@click.option("--no-echo", is_flag=True, help="Inward only.")
@json_option
def load(
    keys_file: str,
    target: str,
    sink: str,
    cluster: int,
    transceiver: int,
    calls: int,
    rate: float,
    size: int,
    seconds: float,
    no_echo: bool,
    as_json: bool,
) -> None:
    """Put synthetic calls on a relay, and count what is lost each way. Exits with 1 where a packet is."""
    require_linux()
    from testbed.errors import ExitCode
    from testbed.voice.addresses import Address
    from testbed.voice.keys import Keys
    from testbed.voice.load import Plan
    from testbed.voice.load import load as loaded

    plan = Plan(
        relay=Address.parse(target, where="--relay"),
        sink=Address.parse(sink, where="--sink"),
        keys=Keys.load(Path(keys_file), relay=False),
        cluster=cluster,
        transceiver=transceiver,
        calls=calls,
        rate=rate,
        size=size,
        echo=not no_echo,
    )
    with loaded(plan) as running:
        if running.set_up() < calls:
            click.echo(f"{running.set_up():,} of {calls:,} calls are set up", err=True)
        running.run(seconds)
        found = running.finish().summary()
    if as_json:
        write_json(found)
    else:
        for name, value in found.items():
            click.echo(f"{name}: {'unknown' if value is None else f'{value:,.1f}'.removesuffix('.0')}")
    whole = found["set_up"] == calls and not found["lost_inward"] and not found["lost_outward"]
    click.get_current_context().exit(int(ExitCode.PASS if whole and found["sent"] else ExitCode.FAIL))
