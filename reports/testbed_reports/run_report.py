"""The report of a run as a folder: its page, a page per test that has something to say, and the files these lead to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from markupsafe import Markup

from testbed.errors import InfrastructureError
from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from testbed.measure.resultfile import ResultFileError
from testbed.measure.run import RunRecord, TestRecord
from testbed_reports.changes import Since, conditions_of_run
from testbed_reports.comparison import Key, compare, key
from testbed_reports.frame import ALONE, Site, frame, render, way_up, write_page_file
from testbed_reports.listing import most_wrong
from testbed_reports.overview import Morning, render_overview
from testbed_reports.page import Around, render_article, render_page
from testbed_reports.sources import Source, lab_condition
from testbed_reports.sums import Sums
from testbed_reports.workers import spread

#: A file of samples or a capture above this stays where it is: a site is to be looked at.
MOST_FILE_BYTES: Final = 32 << 20
#: A self-contained file is to be sent by mail.
MOST_SINGLE_BYTES: Final = 6 << 20
_MOST_FURTHER: Final = 200


@dataclass(frozen=True)
class Earlier:
    """What is known of the time before a run.

    Attributes:
        before: the run before it, of the same tests.
        since: the last such run that was a pass.
        last_pass: the last pass of each of its tests; None: nobody looked.
    """

    before: RunRecord | None = None
    since: Since | None = None
    last_pass: dict[Key, Since] | None = None


@dataclass
class _Told:
    """What writing the pages of a test told of its results."""

    sums: Sums = field(default_factory=Sums)
    labs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Place:
    """Where the pages of all tests of a run come from and go to."""

    source: Source
    out: Path
    root: str
    places: tuple[tuple[str, str], ...]
    compared: bool


#: A test's number in the run, and its last pass.
_Task = tuple[int, Since | None]


def write_run_report(
    source: Source,
    out: Path,
    earlier: Earlier,
    *,
    root: str = "",
    places: tuple[tuple[str, str], ...] = (),
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Write a run's folder; its assets are the site's.

    Args:
        source: the run.
        out: its folder, which must exist.
        earlier: what it is compared with.
        root: the way from that folder to the site's root.
        places: what all pages lead to.
        tell: called with pages written and pages in all.

    Raises InfrastructureError when the folder cannot be written.
    """
    run = source.run
    _folder(out / "t")
    known = earlier.last_pass
    tasks = [
        (number, None if known is None else known.get(key(test)))
        for number, test in enumerate(run.tests)
        if has_page(test)
    ]
    heavy = sum(bool(run.tests[number].results) for number, _ in tasks)
    sums, conditions = Sums(), conditions_of_run(run)
    place = _Place(source, out, root, places, known is not None)
    for done, told in enumerate(spread(_write_test, place, tasks, heavy), 1):
        sums.join(told.sums)
        conditions |= told.labs
        tell(done, len(tasks))
    comparison = None if earlier.before is None else compare(earlier.before, run)
    further = [f"tests-{number}.html" for number in range(2, _MOST_FURTHER)]
    pages = render_overview(
        run,
        sums,
        Morning(comparison, earlier.since, conditions),
        lambda number: f"t/{number}.html" if has_page(run.tests[number]) else "",
        Site(root, places),
        further=further,
    )
    for name, document in zip(["index.html", *further], pages, strict=False):
        write_page_file(out / name, document)


def has_page(test: TestRecord) -> bool:
    """Whether a test has anything to say beyond its name and that it passed."""
    return bool(test.results or test.artefacts or (test.verdict is not Verdict.PASS and test.reason))


def _write_test(place: _Place, task: _Task) -> _Told:
    """One test's pages: one per result, or one that says what else is known."""
    (number, since), source, out = task, place.source, place.out
    test, told, names = source.run.tests[number], _Told(), [f"t/{number}.html"]
    names += [f"t/{number}-{further}.html" for further in range(2, len(test.results) + 1)]
    results: list[Result | ResultFileError | None] = [*source.results(test)]
    keep = _Keeper(source.folder, out, f"files/{number}-kept")
    kept = tuple((artefact, keep(artefact.path)) for artefact in test.artefacts)
    for name, found in zip(names, results or [None], strict=True):
        site = Site(place.root + way_up(name), place.places)
        if isinstance(found, Result):
            told.sums.add(found)
            told.labs |= lab_condition(found)
            folder = source.inside(test.results[names.index(name)]).parent
            files = _Keeper(folder, out, f"files/{number}{name.removeprefix(f't/{number}')[:-5]}")
            around = Around(site, since, place.compared, files, kept)
            document = render_page(found, around)
        else:
            told.sums.unreadable += found is not None
            context = {
                "test": test,
                "run": source.run,
                "links": kept,
                "unreadable": found.lines() if isinstance(found, ResultFileError) else [],
            }
            document = render("test.html.j2", frame(site, ()), context)
        write_page_file(out / name, document)
    return told


def write_single(source: Source, path: Path, earlier: Earlier, most_bytes: int = MOST_SINGLE_BYTES) -> None:
    """Write a run as one file that needs nothing else; what does not fit is named, not shown.

    Raises InfrastructureError when it cannot be written.
    """
    run = source.run
    if len(run.tests) == 1 and len(run.tests[0].results) == 1:
        found = next(iter(source.results(run.tests[0])))
        if isinstance(found, ResultFileError):
            raise found
        known = earlier.last_pass
        since = None if known is None else known.get(key(run.tests[0]))
        write_page_file(path, render_page(found, Around(ALONE, since, known is not None)))
        return
    sums, conditions, left = Sums(), conditions_of_run(run), most_bytes
    articles: list[Markup] = []
    for _, test in most_wrong(run.tests, len(run.tests)):
        for found in source.results(test):
            if isinstance(found, ResultFileError):
                sums.unreadable += 1
                continue
            sums.add(found)
            conditions |= lab_condition(found)
            if left <= 0:
                continue
            article = render_article(found, f"result{len(articles)}", test.name)
            left -= len(article)
            if left > 0:
                articles.append(article)
    for test in run.tests:
        if test.verdict is Verdict.PASS:
            for found in source.results(test):
                if isinstance(found, Result):
                    sums.add(found)
                    conditions |= lab_condition(found)
    comparison = None if earlier.before is None else compare(earlier.before, run)
    morning = Morning(comparison, earlier.since, conditions)
    write_page_file(path, render_overview(run, sums, morning, lambda _: "", articles=articles)[0])


class _Keeper:
    """Puts files that a page names beside it, and tells their addresses."""

    def __init__(self, source: Path, out: Path, below: str) -> None:
        self._source, self._out, self._below = source, out, below

    def __call__(self, name: str) -> str:
        """The address from a test's page; empty for a file that is missing, too large, or elsewhere."""
        path, target = self._source / name, self._out / self._below / name
        try:
            real = path.resolve(strict=True)
            if not real.is_relative_to(self._source.resolve()) or not real.is_file():
                return ""
            if real.stat().st_size > MOST_FILE_BYTES:
                return ""
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                _link_or_copy(real, target)
        except OSError:
            return ""
        # Pages of tests lie one folder below the run's.
        return f"../{self._below}/{name}"


def _link_or_copy(source: Path, target: Path) -> None:
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureError(
            "this folder cannot be made", where=str(path), found=error.strerror or str(error)
        ) from None
