"""What the commands for running fabrics share."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from testbed.errors import InfrastructureError, UnsupportedError, UsageError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from testbed.fabric.netns.fabric import NetnsFabric

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, None: 1.0}

#: Of tables: a narrower terminal wraps them.
_LEAST_WIDTH = 120

fabric_option = click.option(
    "--fabric", metavar="NAME", help="Which running fabric; not needed where only one can be meant."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def require_linux() -> None:
    """Raise UnsupportedError elsewhere."""
    if sys.platform != "linux":
        raise UnsupportedError(
            f"fabrics of namespaces need Linux 6.1 or newer; this is {sys.platform}", remedy="use a Linux machine or VM"
        )


def require_voice() -> None:
    """Raise UnsupportedError where the packages of WebRTC are not installed, or not at the versions that are pinned."""
    from importlib.metadata import PackageNotFoundError, version

    remedy = "pip install 'mrc-testbed[voice]'"
    for name, pinned in (("aiortc", "1.16.0"), ("aiohttp", ""), ("websockets", "")):
        try:
            found = version(name)
        except PackageNotFoundError:
            raise UnsupportedError(f"the Python package {name} is not installed", remedy=remedy) from None
        if pinned and found != pinned:
            # What aiortc keeps to itself is used, and may be otherwise in another version.
            raise UnsupportedError(f"another version of {name}", found=found, expected=pinned, remedy=remedy)


def console(*, stderr: bool = False) -> Console:
    """A rich console that leaves names, numbers and brackets alone, and cuts no table to fit a pipe."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False)
    if made.width < _LEAST_WIDTH:
        made.width = _LEAST_WIDTH
    return made


def write_json(value: Any) -> None:
    """Print a value as JSON, with the names of nodes and the units as they are."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def pick(name: str | None) -> str:
    """The fabric a command is for: the one named, or the only one running, or the only one that `testbed up` built.

    Raises:
        UsageError: the name is wrong, or several could be meant.
        InfrastructureError: none is running.
    """
    require_linux()
    from testbed.fabric.netns.client import running_fabrics

    running = running_fabrics()
    if name is None and len(running) == 1:
        return running[0]
    if name in running:
        assert name is not None
        return name
    if not running:
        raise InfrastructureError(
            "no fabric is running" if name is None else f"no fabric named {name!r} is running",
            remedy="`testbed up` builds one",
        )
    if name is None:
        detached = [each for each in running if _is_detached(each)]
        if len(detached) == 1:
            return detached[0]
        raise UsageError(
            f"{len(running)} fabrics are running", found="no name", expected="one of: " + ", ".join(running)
        )
    raise UsageError(
        f"no fabric named {name!r} is running", expected="one of: " + ", ".join(running), nearest=nearest(name, running)
    )


def _is_detached(name: str) -> bool:
    from testbed.fabric.netns.client import KeeperClient

    try:
        client = KeeperClient.connect(name)
    except InfrastructureError:
        return False
    client.close()
    return bool(client.facts["detached"])


def attached(name: str | None) -> NetnsFabric:
    """Connect to the fabric a command is for, until the command ends. Raises as :func:`pick` and ``attach`` do."""
    picked = pick(name)
    from testbed.fabric.netns.fabric import attach

    found = attach(picked)
    click.get_current_context().call_on_close(found.client.close)
    return found


def fabric_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Callback that checks a name for a new fabric."""
    if value is not None and not _NAME.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not letters, digits, '.', '_' or '-', at most 63")
    return value


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """A time such as ``500ms``, ``5s``, ``2min``; a bare number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float | int):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a duration such as 500ms, 5s or 2min", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


def age(seconds: float) -> str:
    """A time span in the largest unit that fits: ``42 s``, ``7 min``, ``3 h``, ``2 d``."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
