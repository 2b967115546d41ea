"""The front page of a site, and the table of all runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from markupsafe import Markup

from testbed.measure.result_parts import Verdict
from testbed.measure.run import RunRecord
from testbed_reports.comparison import Comparison
from testbed_reports.display import SIGNS, quantity, span
from testbed_reports.drawn_history import draw_history
from testbed_reports.frame import Site, frame, render, script_data
from testbed_reports.history.tables import Run
from testbed_reports.overview import Morning, changed_since
from testbed_reports.trends.store import Told

#: Runs in the table of all; those before are in the database.
MOST_RUNS: Final = 3_000
#: Runs on the front page.
RECENT: Final = 14
MOST_TOLD: Final = 20
MOST_LOST: Final = 20


def render_history(runs: Sequence[Run], shown: Collection[str], site: Site) -> str:
    """Every run, the newest first."""
    context = {
        "runs": _rows(runs[:MOST_RUNS], shown),
        "more": max(len(runs) - MOST_RUNS, 0),
        "total": len(runs),
        "drawing": _drawing(runs),
    }
    return render("history.html.j2", frame(site, ("page.js",), "history.html"), context)


def _drawing(runs: Sequence[Run]) -> tuple[Markup, Markup] | None:
    drawn = draw_history(runs)
    return None if drawn is None else (drawn[0], script_data(drawn[1]))


def render_front(
    runs: Sequence[Run],
    shown: Collection[str],
    newest: RunRecord | None,
    morning: Morning,
    told: Sequence[Told],
    site: Site,
) -> str:
    """The newest run, what is new in it, and those before it."""
    fresh = [one for one in told if one.new]
    comparison = morning.comparison
    changed, more = changed_since(morning)
    context: dict[str, Any] = {
        "newest": None if not runs else _rows(runs[:1], shown)[0],
        "where": [] if newest is None else sorted({test.realised for test in newest.tests}),
        "verdict": Verdict.NOT_RUN.value if not runs else _verdict(runs[0], comparison).value,
        "drawing": _drawing(runs),
        "recent": _rows(runs[:RECENT], shown),
        "comparison": comparison,
        "lost": [] if comparison is None else list(comparison.not_run[:MOST_LOST]),
        "failing": [] if comparison is None else list(comparison.failing[:MOST_LOST]),
        "told": [
            {
                "test": one.trend.key[0],
                "figure": one.trend.figure.replace("_", " "),
                "before": quantity(one.change.before, one.trend.unit, name=one.trend.figure),
                "after": quantity(one.change.after, one.trend.unit, name=one.trend.figure),
                "direction": one.direction,
                "first": one.first,
                "last": one.last,
            }
            for one in fresh[:MOST_TOLD]
        ],
        "fresh": len(fresh),
        "since": morning.since,
        "changes": changed,
        "more_changes": more,
    }
    return render("front.html.j2", frame(site, ("page.js",), "index.html"), context)


def _verdict(run: Run, comparison: Comparison | None) -> Verdict:
    return Verdict.FAIL if comparison is not None and comparison.not_run else Verdict(run.verdict)


def _rows(runs: Sequence[Run], shown: Collection[str]) -> list[dict[str, Any]]:
    return [
        {
            "run": run,
            "address": f"runs/{run.id}/index.html" if run.id in shown else "",
            "sign": SIGNS[Verdict(run.verdict)],
            "took": span(run.duration_s),
        }
        for run in runs
    ]
