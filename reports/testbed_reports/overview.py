"""The page of a whole run: what a person wants to know in the morning, on its first screen."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from testbed.measure.distributions import distribution_of
from testbed.measure.result_parts import Verdict
from testbed.measure.run import RunRecord
from testbed.measure.texts import clipped
from testbed_reports.changes import Change, Since, changes
from testbed_reports.comparison import Comparison, Pair
from testbed_reports.display import NOT_MEASURED, SIGNS, count, span
from testbed_reports.drawn_distribution import draw_distributions
from testbed_reports.frame import ALONE, Site, frame, render
from testbed_reports.listing import Addressed, most_wrong, pages_of
from testbed_reports.sums import Sums

#: Tests named on the first screen of each kind.
MOST_NAMED: Final = 12
#: Tests that are no pass listed with their whole reasons.
MOST_WRONG: Final = 60
MOST_CHANGES: Final = 16


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
    changed, more = changed_since(morning)
    failovers = _failovers(sums)
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
            "failovers": failovers,
            "articles": list(articles),
            "signs_of": lambda group: SIGNS[group.verdict],
        }
        pages.append(render("overview.html.j2", frame(site, scripts, here), context))
    return pages


def cards(run: RunRecord, sums: Sums, morning: Morning) -> list[Card]:
    """Tests, then the counts that must be 0, then what changed."""
    parts = [f"{count(run.count(verdict))} {SIGNS[verdict][1]}" for verdict in Verdict]
    out = [
        Card(
            "Tests",
            count(len(run.tests)),
            run.verdict.value,
            ", ".join(parts),
            _tags(Counter(test.realised for test in run.tests)),
            "tests of this run by verdict; unknown and not run are never a pass",
        ),
        _unexplained(sums),
        _unhealed(sums),
    ]
    comparison = morning.comparison
    out.append(_newly(comparison, "Newly not run", "not_run", "ran in the run before, and not in this"))
    out.append(_newly(comparison, "Newly failing", "failing", "fail now, and did not in the run before"))
    changed, more = changed_since(morning)
    if morning.since is None:
        out.append(Card("Changed since last pass", "–", "plain", "no earlier pass is known", (), _CHANGED))
    else:
        about = f"since {morning.since.created:%Y-%m-%d %H:%M}"
        out.append(Card("Changed since last pass", count(len(changed) + more), "plain", about, (), _CHANGED))
    return out


def _failovers(sums: Sums) -> Markup | None:
    """How failover times are spread over all results, apart for each thing that labs were made of."""
    found = [
        distribution_of("failover", "s", realised, np.array(each.failovers))
        for realised, each in sorted(sums.of.items())
        if len(each.failovers) > 1
    ]
    return draw_distributions([one for one in found if one is not None], "failover")


_CHANGED: Final = "what differs from the last run that was a pass: versions, machine, labs, and facts such as firmware"


def _tags(parts: Mapping[str, int]) -> tuple[str, ...]:
    """What a figure was measured on; where that is several things, how much of it on each."""
    if len(parts) == 1:
        return tuple(parts)
    return tuple(f"{realised} {count(number)}" for realised, number in sorted(parts.items()))


def _unexplained(sums: Sums) -> Card:
    definition = "packets sent that were neither delivered nor dropped at a named hop, over all results"
    label, whole = "Unexplained packets", sums.whole
    tags = _tags({realised: each.unexplained for realised, each in sums.of.items()})
    if whole.unexplained:
        return Card(label, count(whole.unexplained), "fail", f"in {count(whole.results)} results", tags, definition)
    if not whole.results:
        return Card(label, NOT_MEASURED, "unknown", "this run left no results", (), definition)
    if whole.uncounted:
        about = f"{count(whole.uncounted)} of {count(whole.results)} results do not know"
        return Card(label, NOT_MEASURED, "unknown", about, tuple(sorted(sums.of)), definition)
    return Card(label, "0", "pass", f"in {count(whole.results)} results, exact", tags, definition)


def _unhealed(sums: Sums) -> Card:
    definition = "injected faults that were not undone, or of which nobody could tell"
    whole, about = sums.whole, f"of {count(sums.whole.faults)} injected"
    if whole.unclear:
        about += f", {count(whole.unclear)} of them not known"
    tags = _tags({realised: each.unhealed for realised, each in sums.of.items()})
    if whole.unhealed:
        return Card("Unhealed faults", count(whole.unhealed), "fail", about, tags, definition)
    if whole.unclear or not whole.results:
        return Card("Unhealed faults", NOT_MEASURED, "unknown", about, tuple(sorted(sums.of)), definition)
    return Card("Unhealed faults", "0", "pass", about, tags, definition)


def _newly(comparison: Comparison | None, label: str, name: str, definition: str) -> Card:
    if comparison is None:
        return Card(label, "–", "plain", "no earlier run is known", (), definition)
    found: tuple[Pair, ...] = getattr(comparison, name)
    about = f"against {comparison.before.created:%Y-%m-%d %H:%M}"
    # Keys end in what the lab was made of; a 0 is one of everything that either run was made on.
    made = {test.realised: 0 for run in (comparison.before, comparison.now) for test in run.tests}
    tags = _tags(made | Counter(pair.key[2] for pair in found))
    return Card(label, count(len(found)), "fail" if found else "pass", about, tags, definition)


def changed_since(morning: Morning) -> tuple[list[Change], int]:
    """What differs from the last pass, as much as is shown, and how much more does."""
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
