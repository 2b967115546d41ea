"""``testbed driver``: which drivers there are, and the beginning of a new one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import click

from testbed.cli.common import console, json_option, write_json
from testbed.errors import ExitCode, UsageError

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@click.group()
def driver() -> None:
    """List drivers of devices, and begin a new one."""


@driver.command(name="list")
@json_option
def list_drivers(as_json: bool) -> None:
    """List installed drivers: what each can do, what it refuses, what it was verified on."""
    found = [_facts(name) for name in _known()]
    if as_json:
        write_json({"drivers": found})
    else:
        _show(found)
    if any(each["error"] for each in found):
        click.get_current_context().exit(int(ExitCode.FAIL))


@driver.command()
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), help="Where it is put; by default testbed-driver-NAME here.")
def new(name: str, folder: Path | None) -> None:
    """Begin the driver NAME: a package of its own, with a test that it holds to what drivers have to."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            "this is no name of a driver", found=name, expected="small letters, digits and -, as in acme-os"
        )
    if name in _known():
        raise UsageError("a driver of this name is installed already", found=name)
    where = folder or Path(f"testbed-driver-{name}")
    if where.exists():
        raise UsageError("this folder is there already", found=str(where), remedy="choose another with --folder")
    for path, text in _files(name).items():
        file = where / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    click.echo(f"{where}: a driver that says its version. Next:")
    click.echo(f"  pip install -e {where}")
    click.echo(f"  pytest {where}")


def _known() -> list[str]:
    from testbed.fabric.rig.drivers import known

    return sorted(known())


def _facts(name: str) -> dict[str, Any]:
    """What a driver says of itself; or why it cannot be loaded, which is no reason not to list the others."""
    from testbed.fabric.rig.drivers import known

    point = known()[name]
    facts: dict[str, Any] = {"name": name, "class": point.value, "error": ""}
    try:
        made = point.load()
        facts |= {
            "capabilities": sorted(made.capabilities),
            "refused": dict(sorted(made.refused.items())),
            "verified_on": str(made.verified_on),
        }
    except Exception as error:
        facts["error"] = f"{type(error).__name__}: {error}"
    return facts


def _show(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("driver", "can", "verified on"):
        table.add_column(column, overflow="fold")
    for each in found:
        if each["error"]:
            table.add_row(each["name"], escape(f"cannot be loaded: {each['error']}"), "")
        else:
            table.add_row(each["name"], ", ".join(each["capabilities"]), escape(each["verified_on"]))
    console().print(table)


def _files(name: str) -> dict[str, str]:
    """Path → text of the files of a new driver."""
    from importlib.resources import files

    module = name.replace("-", "_")
    words = {"NAME": name, "MODULE": f"testbed_driver_{module}", "CLASS": "".join(map(str.capitalize, name.split("-")))}
    templates = files("testbed.cli") / "driver_template"
    paths = {
        "pyproject.toml": "pyproject.toml.template",
        f"testbed_driver_{module}.py": "driver.py.template",
        f"test_{module}.py": "test.py.template",
    }
    out = {}
    for path, template in paths.items():
        text = (templates / template).read_text()
        for word, value in words.items():
            text = text.replace(f"%{word}%", value)
        out[path] = text
    return out
