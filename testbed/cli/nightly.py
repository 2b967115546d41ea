"""``testbed nightly``: a suite on labs, stored, compared, published, told; gone on with after a crash."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from importlib import resources
from pathlib import Path
from types import FrameType

import click

from testbed.cli.common import json_option, write_json
from testbed.errors import UsageError


@click.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--init", type=click.Path(path_type=Path), metavar="FILE", help="Write a file to begin with, and end.")
@click.option("--check", is_flag=True, help="Only read CONFIG, and say what is wrong with it.")
@click.option("--resume", is_flag=True, help="Only go on with a night that died; begin none.")
@click.option("--fresh", is_flag=True, help="Do not go on with a night that died: keep it as it is, begin another.")
@click.option(
    "--fact", "facts", multiple=True, metavar="NAME=VALUE", help="What may differ between nights; repeatable."
)
@json_option
def nightly(
    config: Path | None,
    init: Path | None,
    check: bool,
    fresh: bool,
    resume: bool,
    facts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the suite of CONFIG on its labs, store the run, compare it with the one before, publish, and tell.

    A night that died is gone on with, without the test that was under way. Exit codes, of all nights the worst that
    happened: 0 pass; 1 fail, or something that ran the time before was not run; 3 unknown; 4 infrastructure; 5 a fault
    was not undone; 6 nothing ran; 2 CONFIG cannot be used.
    """
    if init is not None:
        _init(init)
        return
    if config is None:
        raise UsageError(
            "which nightly?", expected="a file: testbed nightly FILE", remedy="testbed nightly --init nightly.yaml"
        )
    from testbed.nightly.config import Config

    loaded = Config.load(config)
    if check:
        click.echo(f"{config}: {loaded.suite}, {len(loaded.tests)} paths of tests on {', '.join(loaded.labs)}")
        return
    if fresh and resume:
        raise UsageError("--fresh and --resume exclude each other")
    from testbed.nightly import telling
    from testbed.nightly.night import died, run

    began = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"{time.monotonic() - began:7.0f} s  {line}", err=True)

    # As Ctrl-C: what runs is ended, and the next start goes on from there.
    signal.signal(signal.SIGTERM, _interrupt)
    command = ("testbed", *sys.argv[1:])
    start = config.absolute().parent
    if resume and not died(loaded, start):
        tell("no night died that is to be gone on with")
        return
    came, night = run(loaded, start, command, _facts(facts), tell, fresh=fresh)
    if as_json:
        write_json(telling.message(came, night, loaded))
    else:
        for line in telling.lines(came, night):
            click.echo(line)
    click.get_current_context().exit(int(came.exit_code))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _facts(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name.strip():
            raise UsageError("a fact has a name and a value", where="--fact", found=one, expected="NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def _init(path: Path) -> None:
    text = resources.files("testbed.nightly").joinpath("example.yaml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError("this file is there already", where=str(path), expected="a new file") from None
    except OSError as error:
        raise UsageError("this file cannot be written", where=str(path), found=error.strerror or str(error)) from None
    click.echo(f"{path}: change it, then `testbed nightly {shlex.quote(str(path))} --check`")
