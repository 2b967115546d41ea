"""A static site of a history: built beside the one that is there, and put in its place in one step.

``DIR`` is a symbolic link to one of the builds in ``.DIR.site``. Pages of runs never change: they lie beside the
builds, and each build has a link to those of every run it shows, however many pages these are. A build that dies leaves
``DIR`` as it was, and what the next build removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from testbed.errors import InfrastructureError, UsageError
from testbed.measure.result_parts import Verdict
from testbed.measure.resultfile import ResultFileError
from testbed.measure.run import RunRecord
from testbed_reports.compare_page import render_compare
from testbed_reports.comparison import Comparison, Key, compare
from testbed_reports.frame import ASSETS, Site, write_assets, write_page_file
from testbed_reports.history.store import History
from testbed_reports.history.tables import Run
from testbed_reports.history_page import render_front, render_history
from testbed_reports.overview import Morning
from testbed_reports.run_report import Earlier, write_run_report
from testbed_reports.sources import Source, read_source
from testbed_reports.trends.pages import render_test_trends, render_trends
from testbed_reports.trends.store import Told, Trend, read_trends, tell

PLACES: Final = (("Latest", "index.html"), ("History", "history.html"), ("Trends", "trends/index.html"))
#: Finished builds kept beside the one that is shown, for those who are reading them.
_KEPT: Final = 1
_BUILD, _DONE = "build-", "site-"
#: Pages of runs: beside the builds, and in each build links to them.
_RUNS: Final = "runs"

#: Called with what is being built.
Tell = Callable[[str], None]


@dataclass
class Published:
    """What publishing did."""

    folder: Path
    built: int = 0
    kept: int = 0
    gone: int = 0
    told: list[Told] = field(default_factory=list)
    #: Of the newest run, as its page says: a fail where something that ran in the run before did not run in it.
    verdict: Verdict = Verdict.NOT_RUN


def publish(history: History, out: Path, *, keep: int = 90, say: Tell = lambda _text: None) -> Published:
    """Build the site of a history and show it at ``out``.

    Args:
        history: what to show.
        out: a path where nothing is, or what an earlier call put there.
        keep: how many of the newest runs have pages of their own; all are in tables and trends.
        say: called with what is being built.

    Raises:
        UsageError: something else is at ``out``.
        InfrastructureError: it cannot be written, or another build is under way.

    """
    out = out.absolute()
    store = out.parent / f".{out.name}.site"
    _require_ours(out, store)
    try:
        store.mkdir(parents=True, exist_ok=True)
        with _locked(store):
            return _build(history, out, store, keep, say)
    except OSError as error:
        raise InfrastructureError(
            "the site cannot be written", where=str(out), found=error.strerror or str(error)
        ) from None


def _build(history: History, out: Path, store: Path, keep: int, say: Tell) -> Published:
    _remove_left(store)
    before = out.resolve() if out.is_symlink() else None
    numbers = [int(path.name.removeprefix(_DONE)) for path in store.glob(f"{_DONE}*") if path.name[5:].isdigit()]
    number = max(numbers, default=0) + 1
    build = store / f"{_BUILD}{number}"
    (build / _RUNS).mkdir(parents=True)
    (store / _RUNS).mkdir(exist_ok=True)
    done = Published(out)
    _assets(before, build)
    runs = history.runs()
    say(f"{len(runs)} runs in the history")
    shown = set()
    for run in runs[:keep]:
        target = _run_pages(history, run, before, store / _RUNS / f"{run.id}@{number}", done, say)
        if target is not None:
            (build / _RUNS / run.id).symlink_to(target)
            shown.add(run.id)
    _trend_pages(history, runs, build, done, say)
    site = Site("", PLACES)
    write_page_file(build / "history.html", render_history(runs, shown, site))
    newest = None if not runs else history.run(runs[0].id)
    earlier = None if newest is None else history.before(newest)
    comparison = None if newest is None or earlier is None else compare(earlier, newest)
    if newest is not None:
        done.verdict = newest.verdict if comparison is None else comparison.verdict
    morning = Morning() if newest is None else _morning(history, newest, comparison)
    write_page_file(build / "index.html", render_front(runs, shown, newest, morning, done.told, site))
    final = store / f"{_DONE}{number}"
    _sync(build)
    build.rename(final)
    _show(final, out, store)
    for old in sorted(numbers)[: -_KEPT or None]:
        shutil.rmtree(store / f"{_DONE}{old}")
    _remove_left(store)
    return done


def _morning(history: History, newest: RunRecord, comparison: Comparison | None) -> Morning:
    return Morning(comparison, history.last_pass(newest), history.conditions(newest.id))


def _remove_left(store: Path) -> None:
    """Remove builds that did not come to their end, and pages of runs that no finished one links to."""
    for left in store.glob(f"{_BUILD}*"):
        shutil.rmtree(left)
    linked = {link.readlink().name for link in store.glob(f"{_DONE}*/{_RUNS}/*")}
    for pages in store.glob(f"{_RUNS}/*"):
        if pages.name not in linked:
            shutil.rmtree(pages)


def _assets(before: Path | None, build: Path) -> None:
    """Ours, and those that pages of earlier builds still ask for."""
    if before is not None and (before / "assets").is_dir():
        _link_tree(before / "assets", build / "assets")
    write_assets(build)
    assert len(list((build / "assets").iterdir())) >= len(ASSETS)


def _run_pages(history: History, run: Run, before: Path | None, new: Path, done: Published, say: Tell) -> Path | None:
    """Where a build links to for a run's pages: to those of the build before, for runs do not change, or to new ones.

    None where there are none, and the run's files are gone.
    """
    old = None if before is None else before / _RUNS / run.id
    if old is not None and old.is_dir():
        done.kept += 1
        return old.readlink()
    try:
        source = read_source(Path(run.file))
    except (ResultFileError, UsageError):
        source = None
    if source is None or source.run.id != run.id:
        done.gone += 1
        return None
    say(f"pages of {run.id}")
    new.mkdir()
    _make_run_pages(history, source, new)
    _sync(new)
    done.built += 1
    return Path("..", "..", _RUNS, new.name)


def _make_run_pages(history: History, source: Source, made: Path) -> None:
    run, root = source.run, "../../"
    earlier = history.before(run)
    known = Earlier(earlier, history.last_pass(run), history.last_passes(run))
    write_run_report(source, made, known, root=root, places=PLACES)
    if earlier is not None:
        before, now = history.figures(earlier.id), history.figures(run.id)
        write_page_file(made / "compare.html", render_compare(compare(earlier, run), before, now, Site(root, PLACES)))


def _trend_pages(history: History, runs: list[Run], build: Path, done: Published, say: Tell) -> None:
    (build / "trends").mkdir()
    trends = read_trends(history)
    say(f"trends of {len(trends)} measurements")
    done.told = tell(history, trends, runs[0].id) if runs else []
    by_test: dict[Key, list[Trend]] = {}
    for trend in trends:
        by_test.setdefault(trend.key, []).append(trend)
    told: dict[Key, list[Told]] = {}
    for one in done.told:
        told.setdefault(one.trend.key, []).append(one)
    site = Site("../", PLACES)
    # By the number that the history gave the test: an address stays when others come.
    addresses = {key: f"{found[0].test}.html" for key, found in by_test.items()}
    for key, found in by_test.items():
        page = render_test_trends(key, found, told.get(key, []), site)
        write_page_file(build / "trends" / addresses[key], page)
    write_page_file(build / "trends" / "index.html", render_trends(done.told, trends, addresses, site))


def _require_ours(out: Path, store: Path) -> None:
    if out.is_symlink() and out.readlink().parent.name == store.name:
        return
    if out.is_symlink() or out.exists():
        if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
            out.rmdir()
            return
        raise UsageError(
            "something that was not published is here",
            where=str(out),
            expected="a path where nothing is, or a site published earlier",
        )


def _show(final: Path, out: Path, store: Path) -> None:
    """Put the new link in the place of the old one: readers see the one or the other."""
    link = store / "link"
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(Path(store.name) / final.name)
    link.rename(out)
    _sync(out.parent)


def _link_tree(source: Path, target: Path) -> None:
    """The same files under another name: they are never written to again."""
    shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(source, target)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(store: Path) -> Iterator[None]:
    """One build at a time; the kernel lets go when the builder dies."""
    descriptor = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InfrastructureError(
                "another build of this site is under way", where=str(store), remedy="wait until it has ended"
            ) from None
        yield
    finally:
        os.close(descriptor)
