"""The page of a whole run: what a person wants to know in the morning, on its first screen."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from markupsafe import Markup

from testbed.measure.result import Result
from testbed.measure.result_parts import Verdict
from testbed.measure.run import RunRecord
from testbed.measure.texts import clipped
from testbed_reports.changes import Change, Since, changes
from testbed_reports.comparison import Comparison, Pair
from testbed_reports.display import NOT_MEASURED, SIGNS, count, span
from testbed_reports.frame import ALONE, Site, frame, render
from testbed_reports.listing import Addressed, most_wrong, pages_of

#: Tests named on the first screen of each kind.
MOST_NAMED: Final = 12
#: Tests that are no pass listed with their whole reasons.
MOST_WRONG: Final = 60
MOST_CHANGES: Final = 16


@dataclass
class Sums:
    """What the results of a run add up to.

    Attributes:
        unexplained: packets that no hop accounts for.
        uncounted: results that do not know how many those are.
        unhealed: faults that were not undone; ``unclear``: of which nobody could tell.
        results: how many results there were.
        realised: results by what their labs were made of.
    """

    unexplained: int = 0
    uncounted: int = 0
    unhealed: int = 0
    unclear: int = 0
    faults: int = 0
    results: int = 0
    unreadable: int = 0
    realised: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Count one result."""
        self.results += 1
        self.realised[result.realised] += 1
        self.faults += len(result.faults)
        if result.unexplained_packets is None:
            self.uncounted += 1
        else:
            self.unexplained += result.unexplained_packets
        self.unhealed += sum(fault.healed is False for fault in result.faults)
        self.unclear += sum(fault.healed is None for fault in result.faults)

    def join(self, other: Sums) -> None:
        """Count what another counted."""
        for name in ("unexplained", "uncounted", "unhealed", "unclear", "faults", "results", "unreadable"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.realised += other.realised


@dataclass(frozen=True)
class Morning:
    """What a run's page is compared with.

    Attributes:
        comparison: with the run before it; None: there was none.
        since: the last run before it that was a pass; None: there was none.
        conditions: those of this run, for that.
    """

    comparison: Comparison | None = None
    since: Since | None = None
    conditions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """One of the numbers that are seen first."""

    label: str
    value: str
    state: str
    about: str
    tags: tuple[str, ...]
    definition: str


def render_overview(
    run: RunRecord,
    sums: Sums,
    morning: Morning,
    addressed: Addressed,
    site: Site = ALONE,
    *,
    here: str = "",
    further: Sequence[str] = (),
    articles: Sequence[Markup] = (),
) -> list[str]:
    """The run's page, and as many further pages of tests as it needs.

    Args:
        run: what ran.
        sums: what its results add up to.
        morning: what it is compared with.
        addressed: where each test's own page is.
        site: where the page stands.
        here: which of the site's places it is.
        articles: what the page shows of single results, where it stands alone.
        further: addresses of the second page of tests and on; pages without an address are left out.
    """
    lists = pages_of(run.tests, addressed)
    verdict = Verdict.FAIL if morning.comparison and morning.comparison.not_run else run.verdict
    shown = [(number, test, addressed(number)) for number, test in most_wrong(run.tests, MOST_WRONG)]
    changed, more = _changes(morning)
    pages, scripts = [], ("index.js", "page.js") if articles else ("index.js",)
    for position, groups in enumerate(lists[: 1 + len(further)]):
        context: dict[str, Any] = {
            "run": run,
            "verdict": verdict.value,
            "why": _why(run, morning),
            "cards": cards(run, sums, morning),
            "comparison": morning.comparison,
            "named": _named(morning.comparison),
            "since": morning.since,
            "changes": changed,
            "more_changes": more,
            "wrong": shown,
            "more_wrong": len(run.tests) - run.count(Verdict.PASS) - len(shown),
            "groups": groups,
            "left_out": sum(len(group.rows) for rest in lists[1 + len(further) :] for group in rest),
            "total": len(run.tests),
            "position": position,
            "further": list(further)[: len(lists) - 1],
            "labs": sorted({test.lab for test in run.tests}),
            "took": span(run.duration_s),
            "linked": site.root is not None and morning.comparison is not None and bool(site.places),
            "clip": lambda text: clipped(text, 600),
            "command": shlex.join(run.command),
            "sums": sums,
            "articles": list(articles),
            "signs_of": lambda group: SIGNS[group.verdict],
        }
        pages.append(render("overview.html.j2", frame(site, scripts, here), context))
    return pages


def cards(run: RunRecord, sums: Sums, morning: Morning) -> list[Card]:
    """Tests, then the counts that must be 0, then what changed."""
    where = tuple(sorted({test.realised for test in run.tests}))
    measured = tuple(sorted(sums.realised))
    parts = [f"{count(run.count(verdict))} {SIGNS[verdict][1]}" for verdict in Verdict]
    out = [
        Card(
            "Tests",
            count(len(run.tests)),
            _state(run.verdict),
            ", ".join(parts),
            where,
            "tests of this run by verdict; unknown and not run are never a pass",
        ),
        _unexplained(sums, measured),
        _unhealed(sums, measured),
    ]
    out.append(_newly(morning.comparison, "Newly not run", "not_run", where, "ran in the run before, and not in this"))
    out.append(_newly(morning.comparison, "Newly failing", "failing", where, "fail now, and did not in the run before"))
    changed, more = _changes(morning)
    if morning.since is None:
        out.append(Card("Changed since last pass", "–", "plain", "no earlier pass is known", (), _CHANGED))
    else:
        about = f"since {morning.since.created:%Y-%m-%d %H:%M}"
        out.append(Card("Changed since last pass", count(len(changed) + more), "plain", about, (), _CHANGED))
    return out


_CHANGED: Final = "what differs from the last run that was a pass: versions, machine, labs, and facts such as firmware"


def _state(verdict: Verdict) -> str:
    return verdict.value


def _unexplained(sums: Sums, tags: tuple[str, ...]) -> Card:
    definition = "packets sent that were neither delivered nor dropped at a named hop, over all results"
    label = "Unexplained packets"
    if sums.unexplained:
        return Card(label, count(sums.unexplained), "fail", f"in {count(sums.results)} results", tags, definition)
    if not sums.results:
        return Card(label, NOT_MEASURED, "unknown", "this run left no results", tags, definition)
    if sums.uncounted:
        about = f"{count(sums.uncounted)} of {count(sums.results)} results do not know"
        return Card(label, NOT_MEASURED, "unknown", about, tags, definition)
    return Card(label, "0", "pass", f"in {count(sums.results)} results, exact", tags, definition)


def _unhealed(sums: Sums, tags: tuple[str, ...]) -> Card:
    definition = "injected faults that were not undone, or of which nobody could tell"
    about = f"of {count(sums.faults)} injected"
    if sums.unclear:
        about += f", {count(sums.unclear)} of them not known"
    if sums.unhealed:
        return Card("Unhealed faults", count(sums.unhealed), "fail", about, tags, definition)
    if sums.unclear or not sums.results:
        return Card("Unhealed faults", NOT_MEASURED, "unknown", about, tags, definition)
    return Card("Unhealed faults", "0", "pass", about, tags, definition)


def _newly(comparison: Comparison | None, label: str, name: str, tags: tuple[str, ...], definition: str) -> Card:
    if comparison is None:
        return Card(label, "–", "plain", "no earlier run is known", (), definition)
    found: tuple[Pair, ...] = getattr(comparison, name)
    about = f"against {comparison.before.created:%Y-%m-%d %H:%M}"
    return Card(label, count(len(found)), "fail" if found else "pass", about, tags, definition)


def _changes(morning: Morning) -> tuple[list[Change], int]:
    if morning.since is None:
        return [], 0
    found = changes(morning.since.conditions, morning.conditions)
    return found[:MOST_CHANGES], max(len(found) - MOST_CHANGES, 0)


def _named(comparison: Comparison | None) -> list[tuple[str, str, list[Pair], int]]:
    """What is named on the first screen: heading, state, tests, how many more."""
    if comparison is None:
        return []
    kinds = (
        ("Newly not run", "fail", comparison.not_run),
        ("Newly failing", "fail", comparison.failing),
        ("Newly unknown", "unknown", comparison.unknown),
        ("Put right", "pass", comparison.fixed),
        ("Newly running", "plain", comparison.running),
    )
    return [
        (heading, state, list(found[:MOST_NAMED]), max(len(found) - MOST_NAMED, 0))
        for heading, state, found in kinds
        if found
    ]


def _why(run: RunRecord, morning: Morning) -> str:
    """One sentence for the verdict."""
    if morning.comparison and morning.comparison.not_run:
        return f"{_tests(len(morning.comparison.not_run))} that ran in the run before did not run in this one"
    if run.count(Verdict.FAIL):
        return f"{_tests(run.count(Verdict.FAIL))} of {count(len(run.tests))} failed"
    if not run.complete:
        return "this run did not come to its own end"
    if run.count(Verdict.UNKNOWN):
        return f"of {_tests(run.count(Verdict.UNKNOWN))} nobody can tell what they came to"
    idle = run.count(Verdict.NOT_RUN)
    if idle == len(run.tests):
        return "nothing could run"
    return f"every test that ran is a pass{f'; {count(idle)} were not run' if idle else ''}"


def _tests(number: int) -> str:
    return f"{count(number)} test{'' if number == 1 else 's'}"
