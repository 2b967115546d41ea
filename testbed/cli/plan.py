"""``testbed plan``: which devices a run would touch, how, by which tests, and for how long. None is touched."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.cli.common import age, console, json_option, write_json
from testbed.cli.report import history_option

if TYPE_CHECKING:
    import pytest

    from testbed.fabric.rig.rig import Rig
    from testbed.faults.permitted import Level


@dataclass(frozen=True)
class PlannedDevice:
    """A device. ``writes``: what a run sets on it; ``untouched``: its management ports."""

    node: str
    driver: str
    address: str
    verified_on: str
    writes: str
    untouched: tuple[str, ...]


@dataclass(frozen=True)
class PlannedTest:
    """A test. ``level``: how far it says it goes; ``expected_s``: median of its passes on this lab, if any."""

    name: str
    level: str
    run: bool
    expected_s: float | None
    passes: int


@click.command()
@click.argument("lab")
@click.argument("tests", nargs=-1, type=click.Path(path_type=Path))
@click.option("--allow", metavar="LEVEL", help="As of pytest: traffic, link, reboot or power (traffic).")
@history_option
@json_option
def plan(lab: str, tests: tuple[Path, ...], allow: str | None, place: str | None, as_json: bool) -> None:
    """Show what a run of TESTS on the rig of LAB would do. No device is contacted.

    TESTS are files and folders of tests, as for pytest.
    """
    from testbed.errors import UsageError
    from testbed.fabric.rig.rig import Rig
    from testbed.faults.permitted import DEFAULT, parsed
    from testbed.lab import Lab

    loaded = Lab.load(lab)
    if loaded.rig is None:
        raise UsageError("this lab names no devices", where=lab, expected="a lab file with a `rig` section")
    level = DEFAULT if allow is None else parsed(allow)
    with Rig(loaded) as rig:
        devices = _devices(rig)
        reads = _reads(rig)
    planned = _tests(lab, tests, level, place) if tests else []
    if as_json:
        told: dict[str, Any] = {"lab": loaded.name, "allow": level, "devices": [asdict(each) for each in devices]}
        write_json({**told, "reads": reads, "tests": [asdict(each) for each in planned]})
    else:
        _show(devices, reads, planned, level)


def _devices(rig: Rig) -> list[PlannedDevice]:
    from testbed.fabric.rig.plan import switch_routes

    out = []
    switches = set(rig.lab.topology.switches)
    for node, driver in rig.drivers.items():
        device = driver.device
        writes = ""
        if node in switches:
            writes = f"uSID table of {len(switch_routes(rig.lab, rig.addresses, device))} routes"
        address = f"{device.credential.user}@{device.address}"
        out.append(PlannedDevice(node, device.driver, address, driver.verified_on, writes, device.management))
    return out


def _reads(rig: Rig) -> dict[str, dict[str, str]]:
    """Driver → capability → the command that shows the same."""
    from testbed.fabric.frames import ShowsCommands

    return {
        driver.device.driver: dict(driver.shows) for driver in rig.drivers.values() if isinstance(driver, ShowsCommands)
    }


class _Collected:
    """A plugin that keeps what pytest has collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)


def _tests(named: str, paths: tuple[Path, ...], allowed: Level, place: str | None) -> list[PlannedTest]:
    import contextlib
    import io
    import statistics

    import pytest

    from testbed.cli.report import open_history
    from testbed.errors import UsageError
    from testbed.faults.permitted import parsed

    collected, said = _Collected(), io.StringIO()
    argv = ["--collect-only", "-q", "-p", "no:cacheprovider", "--lab", named, *map(str, paths)]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = pytest.main(argv, plugins=[collected])
    if code != pytest.ExitCode.OK:
        lines = [line for line in said.getvalue().splitlines() if line.strip()]
        raise UsageError(
            "pytest collects no tests of these", where=", ".join(map(str, paths)), found="\n".join(lines[-5:])
        )
    with open_history(place) as kept:
        took = kept.passed_in([item.nodeid for item in collected.items], Path(named).stem)
    out = []
    for item in collected.items:
        levels = [parsed(marker.args[0]) for marker in item.iter_markers("disruptive") if marker.args]
        times = took.get(item.nodeid, [])
        expected = statistics.median(times) if times else None
        runs = all(allowed.includes(level) for level in levels)
        out.append(PlannedTest(item.nodeid, ", ".join(levels), runs, expected, len(times)))
    return out


def _show(
    devices: list[PlannedDevice], reads: dict[str, dict[str, str]], tests: list[PlannedTest], allowed: Level
) -> None:
    from rich.table import Table

    out = console()
    table = Table(box=None)
    for title in ("device", "driver", "reached at", "verified on", "is given", "never touched"):
        table.add_column(title, overflow="fold")
    for each in devices:
        untouched = ", ".join(each.untouched)
        table.add_row(each.node, each.driver, each.address, each.verified_on, each.writes, untouched)
    out.print(table)
    for driver, commands in reads.items():
        out.print(f"{driver} is read as by: " + "; ".join(dict.fromkeys(commands.values())))
    out.print(f"allowed: {allowed}, and what is before it; everything that is changed is journalled and put back")
    if not tests:
        return
    table = Table(box=None)
    for title in ("test", "goes as far as", "takes", "of passes"):
        table.add_column(title, overflow="fold")
    for test in tests:
        takes = "not run" if not test.run else "not known" if test.expected_s is None else f"{test.expected_s:.1f} s"
        table.add_row(test.name, test.level or "what it injects", takes, str(test.passes))
    out.print(table)
    known = [test.expected_s for test in tests if test.run and test.expected_s is not None]
    unknown = sum(1 for test in tests if test.run and test.expected_s is None)
    more = f", and {unknown} tests of which no pass is kept" if unknown else ""
    out.print(f"expected: {age(sum(known))} for {len(known)} tests{more}")
