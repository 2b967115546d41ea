"""``--shrink``: a test that fails while a schedule of faults is played is run again under parts of it.

What is left, the smallest part under which it still fails, is printed as a test of its own.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

from testbed.pytest_plugin import outcomes

if TYPE_CHECKING:
    from testbed.faults.schedule import Schedule

#: On an item: what is played in place of the schedule its code names.
INSTEAD = pytest.StashKey["Schedule | None"]()
#: On an item: what it played.
PLAYED = pytest.StashKey["list[Schedule]"]()
#: On an item: whether its call failed for a reason that is the test's, not the machine's.
_FAILED = pytest.StashKey[bool]()
#: On the config: what shrinking came to, for the summary.
SHRUNK = pytest.StashKey[list[tuple[str, str]]]()


def to_be_played(item: pytest.Item, named: Schedule) -> Schedule:
    """What a test plays where it names a schedule: while shrinking a part of it, else its marker's, if it has one."""
    from testbed.faults.schedule import Schedule

    marker = item.get_closest_marker("schedule")
    instead = item.stash.get(INSTEAD, None)
    if instead is None and marker is not None:
        instead = Schedule.parse(textwrap.dedent(marker.args[0]), f"{item.name}, its marker")
    chosen = named if instead is None else instead
    item.stash.setdefault(PLAYED, []).append(chosen)
    return chosen


def note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Remember how a test ended."""
    if report.when == "call":
        item.stash[_FAILED] = report.failed and outcomes.category(report) is None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """After a test, and all its fixtures, has ended."""
    done = yield
    most = item.config.getoption("--shrink")
    played = item.stash.get(PLAYED, [])
    if most and item.stash.get(_FAILED, False) and len(played) == 1 and played[0].events:
        _shrink(item, nextitem, played[0], most)
    return done


def _shrink(item: pytest.Item, nextitem: pytest.Item | None, schedule: Schedule, most: int) -> None:
    from testbed.faults.shrinking import shrink

    terminal: Any = item.config.pluginmanager.getplugin("terminalreporter")

    def fails(part: Schedule) -> bool:
        item.stash[INSTEAD] = part
        item.stash[PLAYED], item.stash[_FAILED] = [], False
        # Its own fixtures are made anew; those that it shares, the fabric's above all, wait for the next run.
        item._initrequest()  # type: ignore[attr-defined]  # noqa: SLF001
        runtestprotocol(item, log=False, nextitem=item.parent)  # type: ignore[arg-type]
        failed = item.stash[_FAILED]
        if terminal is not None:
            terminal.write_line(f"  {item.nodeid}: {len(part.events)} faults: {'fails' if failed else 'passes'}")
        return failed

    if terminal is not None:
        terminal.write_line("")
        terminal.write_line(f"{item.nodeid} failed under {len(schedule.events)} faults; looking for fewer")
    try:
        shrunk = shrink(schedule, fails, most_runs=most, tries=2)
    finally:
        item.stash[INSTEAD] = None
        item.session._setupstate.teardown_exact(nextitem)  # noqa: SLF001
    item.config.stash[SHRUNK].append((f"{item.nodeid}: {shrunk.line()}", as_test(item, shrunk.schedule)))


def as_test(item: pytest.Item, schedule: Schedule) -> str:
    """The source of a test that plays this schedule in place of its own."""
    function = getattr(item, "function", None)
    name = re.sub(r"\W", "_", item.name.partition("[")[0])
    marker = f'@pytest.mark.schedule("""\n{schedule.to_yaml()}""")\n'
    try:
        source = textwrap.dedent(inspect.getsource(function)) if function is not None else ""
    except OSError:
        source = ""
    if not source:
        return marker + f"# … above {item.nodeid}\n"
    return marker + re.sub(rf"\bdef {re.escape(name)}\b", f"def {name}_shrunk", source, count=1)
