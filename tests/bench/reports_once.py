"""How long one night's reports take to build, and how soon a browser can use them; prints JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed_reports.history.store import History
from testbed_reports.publishing import publish
from testbed_reports.run_report import Earlier, write_single
from testbed_reports.sources import read_source

from testbed.fabric.netns.syscalls import set_parent_death_signal
from testbed.measure.result_parts import Verdict
from tests.bench.load import Load
from tests.bench.rig_nights import Night, add_earlier_nights, write_last_night
from tests.browser import browser, programs, seconds_until_usable
from tests.unit.reports.nights import kept, many, night

_MIXED = (*[Verdict.PASS] * 94, Verdict.FAIL, Verdict.UNKNOWN, Verdict.NOT_RUN)


class Laps:
    """Times by the clock, processor times of this process and its children, and whose work the processors did."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}

    def take(self, what: str, work: Callable[[], object]) -> None:
        load, began, spent = Load(), time.perf_counter(), _spent_s()
        work()
        self.found[what] = {
            "s": time.perf_counter() - began,
            "cpu_s": _spent_s() - spent,
            "share": dataclasses.asdict(load.share()),
        }


def _spent_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def rig(size: Night, folder: Path, laps: Laps) -> Path:
    """One night more of a rig that has many; returns the site."""
    site = folder / "site"
    with History.open(str(folder / "history.sqlite")) as history:
        first = write_last_night(size, folder / "first", 0)
        history.add(first)
        publish(history, site)
        add_earlier_nights(history, first.run.id, range(1, size.nights - 1))
        # Pages of the nights between, as their builds would have left them.
        shown = site.resolve() / "runs"
        for number in range(1, size.nights - 1):
            name = f"night-{number:03}"
            made = shutil.copytree(
                shown / "night-000", folder / ".site.site" / "runs" / f"{name}@1", copy_function=os.link
            )
            (shown / name).symlink_to(Path("..", "..", "runs", made.name))
        last = write_last_night(size, folder / "last", size.nights - 1)
        laps.take("added to the history", lambda: history.add(last))
        laps.take("site", lambda: publish(history, site))
        laps.take("site again", lambda: publish(history, site))
    laps.take("one file", lambda: write_single(last, folder / "one.html", Earlier()))
    return site


def suite(tests: int, folder: Path, laps: Laps) -> Path:
    """A run of very many tests of which only the verdicts are known."""
    site = folder / "many"
    with History.open(str(folder / "many.sqlite")) as history:
        source = kept(night(1, many(tests, _MIXED)), folder / "many-results")
        laps.take("many: added to the history", lambda: history.add(read_source(source.file)))
        laps.take("many: site", lambda: publish(history, site))
    return site / "runs" / "night-001" / "index.html"


def pages(site: Path, many_tests: Path, folder: Path) -> dict[str, Path]:
    """The pages that a browser opens."""
    run = max((site / "runs").iterdir())
    return {
        "latest": site / "index.html",
        "run": run / "index.html",
        "result": run / "t" / "0.html",
        "comparison": run / "compare.html",
        "history": site / "history.html",
        "trends": site / "trends" / "index.html",
        "trends of a test": site / "trends" / "1.html",
        "one file": folder / "one.html",
        "run of many tests": many_tests,
    }


def main() -> None:
    """Build, open, and print all times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=300)
    parser.add_argument("--nights", type=int, default=90)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--opened", type=int, default=3, help="times each page is opened")
    options = parser.parse_args()
    set_parent_death_signal()
    laps = Laps()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = rig(Night(options.tests, options.nights), folder, laps)
        found = pages(site, suite(options.many, folder, laps), folder)
        opened: dict[str, dict[str, Any]] = {what: {"bytes": page.stat().st_size} for what, page in found.items()}
        if programs() is not None:
            with browser() as chromium:
                for what, page in found.items():
                    opened[what]["usable_s"] = [seconds_until_usable(chromium, page) for _ in range(options.opened)]
    print(json.dumps({"laps": laps.found, "pages": opened}))


if __name__ == "__main__":
    main()
